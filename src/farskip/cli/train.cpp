#include "farskip/train/train.h"

#include <ATen/Parallel.h>
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <csignal>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/cli/commands.h"
#include "farskip/cli/train_log.h"
#include "farskip/cli/transport.h"
#include "farskip/io/checkpoint.h"
#include "farskip/model/builtin.h"
#include "farskip/nn/determinism.h"
#include "farskip/train/training_plan.h"

namespace farskip {
namespace {

struct TrainOptions {
  std::string config;  // a JSON file of settings
  TrainConfig flags;   // settings given as flags
  std::vector<std::string> given;
  bool resume = false;
  double peak_tflops = 0;
  TransportOptions transport;
};

// Set by an interrupt; read between steps.
std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

// Ctrl-C ends the run after the step at hand; once more, at once.
class InterruptGuard {
 public:
  InterruptGuard() {
    interrupted = false;
    previous_ = std::signal(SIGINT, [](int) {
      interrupted = true;
      std::signal(SIGINT, SIG_DFL);
    });
  }
  ~InterruptGuard() { std::signal(SIGINT, previous_); }
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

 private:
  void (*previous_)(int);
};

// Defaults, then the file, then flags.
TrainConfig resolve(const TrainOptions& options) {
  TrainConfig config;
  if (!options.config.empty()) {
    read_settings(config, read_json_file(options.config), options.config);
  }
  const Json flags = to_json(options.flags);
  Json given = Json::object();
  for (const std::string& name : options.given) given[name] = flags.at(name);
  read_settings(config, given, "flags");
  check(config);
  return config;
}

std::string flag_of(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return "--" + name;
}

struct Model {
  ModelConfig config;
  std::string text;  // its config.json
};

Model load(const TrainConfig& config) {
  const std::string name = config.checkpoint.empty() ? config.model : config.checkpoint;
  Model model{load_model(name), {}};
  if (config.layers > 0) model.config = cut_layers(std::move(model.config), config.layers);
  if (!model.config.executable()) {
    throw UnsupportedError(
        "this model can not be trained",
        {.where = model.config.name, .found = model.config.why_not_executable()});
  }
  model.text = load_model_text(name);
  if (config.layers > 0) {  // what checkpoints and exports say of the model
    Json json = parse_json(model.text, name);
    json["num_hidden_layers"] = config.layers;
    model.text = json.dump(2);
  }
  return model;
}

// Ranks that have the same experts start from the same tensors.
std::vector<Weights> first_weights(const TrainConfig& config, const ModelConfig& model,
                                   const Ranks& ranks) {
  const Placement placement = training_placement(config, model, ranks.size);
  std::set<int> distinct;
  for (int rank : ranks.here) distinct.insert(rank % placement.ranks());
  const std::vector<int> expert_ranks(distinct.begin(), distinct.end());
  const std::vector<Weights> made =
      config.checkpoint.empty()
          ? initial_weights(model, placement, expert_ranks, at::kFloat, config.seed)
          : load_weights(Checkpoint(config.checkpoint), model, placement, expert_ranks, at::kFloat);
  std::vector<Weights> weights;
  for (int rank : ranks.here) {
    const auto place = std::ranges::find(expert_ranks, rank % placement.ranks());
    weights.push_back(made[static_cast<size_t>(place - expert_ranks.begin())]);
  }
  return weights;
}

// Steps make and free the same tensors over and over: their memory stays with the process, so that
// the system does not clear it anew each time. Tensors beyond 32 MiB, which heaps of threads do not
// hold, come and go as before.
void keep_freed_memory() {
  ::mallopt(M_MMAP_THRESHOLD, 32 << 20);
  ::mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
}

void run(const TrainOptions& options, Ranks& ranks) {
  const TrainConfig config = resolve(options);
  use_deterministic_kernels(config.deterministic);
  const Model model = load(config);
  const Connectivity connectivity = Connectivity::load(config.connectivity, model.config.layers);
  const TokenFile data(config.data);
  std::optional<TokenFile> validation;
  if (!config.validation.empty()) validation.emplace(config.validation);
  const std::vector<Weights> weights = first_weights(config, model.config, ranks);
  const std::vector<StageRank> stages = ranks.take_stages(config.pipeline_stages);
  TrainLog log(config, ranks, options.peak_tflops * 1e12);
  const InterruptGuard guard;
  const TrainResult result = train(config,
                                   {.model = model.config,
                                    .model_config = model.text,
                                    .connectivity = connectivity,
                                    .weights = weights,
                                    .ranks = stages,
                                    .data = data,
                                    .validation = validation ? &*validation : nullptr,
                                    .resume = options.resume},
                                   log, interrupted);
  if (ranks.first()) log.finished(result);
}

}  // namespace

void add_train_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "train", "Train a model on text, over several ranks, with any connectivity");
  auto options = std::make_shared<TrainOptions>();
  command->add_option("--config", options->config,
                      "JSON file of settings, named as the flags with _ for -; flags win");
  visit_settings(options->flags, [&](const char* name, auto& field, const char* help) {
    using Field = std::remove_reference_t<decltype(field)>;
    CLI::Option* option =
        std::is_same_v<Field, bool>
            ? command->add_option(flag_of(name), field, std::string(help) + " (true, false)")
            : command->add_option(flag_of(name), field, help);
    option->capture_default_str()->each([options, setting = std::string(name)](const std::string&) {
      options->given.push_back(setting);
    });
  });
  command->add_flag("--resume", options->resume, "go on from the newest checkpoint in --out");
  command
      ->add_option("--peak-tflops", options->peak_tflops,
                   "what all ranks' hardware can do, TFLOP/s: adds its share to the log; 0: not")
      ->capture_default_str();
  add_transport_options(*command, options->transport, 256);
  command->callback([options] {
    at::set_num_threads(1);
    keep_freed_memory();
    with_ranks(options->transport, [&](Ranks& ranks) { run(*options, ranks); });
  });
}

}  // namespace farskip
