// Loads a bfloat16 checkpoint of OLMoE's widths cut to five layers (4.6 GB, written for the purpose
// into the temporary folder and removed afterwards; its pages are in the system's cache) and
// measures memory and reads: once both of two ranks in this process, once a single one of them.
#include <ATen/ops/empty.h>
#include <benchmark/benchmark.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "farskip/base/files.h"
#include "farskip/base/json.h"
#include "farskip/io/naming.h"
#include "farskip/io/weights.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;

constexpr int layers = 5;
constexpr int rank_count = 2;

// A checkpoint folder that goes with the object.
class SyntheticCheckpoint {
 public:
  SyntheticCheckpoint() {
    std::string pattern = (fs::temp_directory_path() / "farskip-load-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
    folder_ = pattern;
    try {
      write();
    } catch (...) {
      fs::remove_all(folder_);
      throw;
    }
  }
  ~SyntheticCheckpoint() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  SyntheticCheckpoint(const SyntheticCheckpoint&) = delete;
  SyntheticCheckpoint& operator=(const SyntheticCheckpoint&) = delete;

  const fs::path& folder() const { return folder_; }

 private:
  void write() const {
    Json json =
        read_json_file(fs::path(FARSKIP_SOURCE_DIR) / "data" / "models" / "olmoe-1b-7b.json");
    json["num_hidden_layers"] = layers;
    write_json_file(folder_ / "config.json", json);
    const ModelConfig config = read_model_config(folder_);
    const Placement whole = Placement::contiguous(config.router.experts, 1);
    const CheckpointNaming naming(config, [](const std::string&) { return false; });
    const Weights weights = random_weights(cut_layers(config, 1), whole, 0, at::kBFloat16, 1);
    std::vector<std::vector<NamedTensor>> shards(layers + 1);  // one a layer, [0] the rest
    for (const WeightSpec& spec : weight_specs(config, whole, 0, at::kBFloat16)) {
      add(spec, weights, naming, config.router.experts, shards[static_cast<size_t>(spec.layer)]);
    }
    Json map;
    for (size_t i = 0; i < shards.size(); ++i) {
      const std::string file = "model-" + std::to_string(i) + ".safetensors";
      write_safetensors(folder_ / file, shards[i]);
      for (const NamedTensor& tensor : shards[i]) map[tensor.name] = file;
    }
    write_json_file(folder_ / "model.safetensors.index.json", {{"weight_map", map}});
  }

  // Every layer gets the values of the first: only sizes matter here.
  static void add(const WeightSpec& spec, const Weights& weights, const CheckpointNaming& naming,
                  int experts, std::vector<NamedTensor>& shard) {
    const std::string suffix =
        spec.name.substr(spec.layer == 0 ? 0 : layer_weight_name(spec.layer, "").size());
    const at::Tensor& weight = weights.at(spec.layer == 0 ? suffix : layer_weight_name(1, suffix));
    const auto add_parts = [&](const std::vector<std::string>& names, const at::Tensor& stack) {
      int64_t begin = 0;
      for (size_t i = 0; i < names.size(); begin += spec.parts[i++]) {
        shard.push_back({names[i], stack.narrow(0, begin, spec.parts[i])});
      }
    };
    if (!spec.of_experts()) return add_parts(naming.sources(spec), weight);
    for (int expert = 0; expert < experts; ++expert) {
      add_parts(naming.expert_sources(spec.layer, spec.role, expert), weight[expert]);
    }
  }

  fs::path folder_;
};

// Anonymous memory of this process, in bytes.
double anonymous_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string field; status >> field;) {
    double kilobytes = 0;
    if (field == "RssAnon:" && status >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

// The highest anonymous memory while the object lives, looked at every two milliseconds.
class PeakMemory {
 public:
  PeakMemory() : sampler_([this] { sample(); }) {}
  ~PeakMemory() { stop(); }

  double stop() {
    done_ = true;
    if (sampler_.joinable()) sampler_.join();
    return std::max(peak_, anonymous_memory());
  }

 private:
  void sample() {
    while (!done_) {
      peak_ = std::max(peak_, anonymous_memory());
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }

  std::atomic<bool> done_{false};
  double peak_ = 0;  // the sampler's until it is joined
  std::thread sampler_;
};

// Bytes of experts' tensors read, over bytes of all of them in the files.
double expert_reads(const Checkpoint& checkpoint) {
  double read = 0, stored = 0;
  for (const std::string& name : checkpoint.names()) {
    if (name.find(".experts.") == std::string::npos) continue;
    const StoredTensor& tensor = checkpoint.info(name);
    stored += static_cast<double>(tensor.end - tensor.begin);
    read += static_cast<double>(checkpoint.bytes_read(name));
  }
  return read / stored;
}

// state.range(0): how many of the two ranks this process loads. Peak and baseline are absolute.
void load(benchmark::State& state) {
  const SyntheticCheckpoint synthetic;
  std::vector<int> ranks;
  for (int rank = 0; rank < state.range(0); ++rank) ranks.push_back(rank);
  for (auto _ : state) {
    const double before = anonymous_memory();
    PeakMemory peak;
    const auto start = std::chrono::steady_clock::now();
    const Checkpoint checkpoint(synthetic.folder());
    const ModelConfig& config = checkpoint.config();
    const auto placement = Placement::contiguous(config.router.experts, rank_count);
    const auto weights = load_weights(checkpoint, config, placement, ranks, at::kBFloat16);
    state.SetIterationTime(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    double own = 0;
    for (int rank : ranks) {
      for (const WeightSpec& spec : weight_specs(config, placement, rank, at::kBFloat16)) {
        if (rank == 0 || spec.of_experts()) own += static_cast<double>(spec.bytes());
      }
    }
    const double highest = peak.stop();
    state.counters["own_weights_GB"] = own / 1e9;
    state.counters["peak_anonymous_GB"] = highest / 1e9;
    state.counters["before_GB"] = before / 1e9;
    state.counters["peak/own"] = highest / own;
    state.counters["expert_bytes_read/stored"] = expert_reads(checkpoint);
  }
}

BENCHMARK(load)
    ->ArgName("ranks_here")
    ->Arg(2)
    ->Arg(1)
    ->Iterations(1)
    ->UseManualTime()
    ->Unit(benchmark::kSecond);

}  // namespace
}  // namespace farskip
