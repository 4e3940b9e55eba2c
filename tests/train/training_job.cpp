#include "training_job.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "../io/learnable_text.h"
#include "farskip/base/files.h"
#include "farskip/comm/local.h"
#include "farskip/train/manifest.h"
#include "farskip/train/training_plan.h"

namespace farskip::testing {
namespace {

class Recorder final : public TrainObserver {
 public:
  Recorder(TrainingJob::Run& run, std::atomic<bool>& stop, int64_t stop_after)
      : run_(run), stop_(stop), stop_after_(stop_after) {}
  void reported(const TrainReport& report) override {
    run_.reports.push_back(report);
    if (stop_after_ > 0 && report.step >= stop_after_) stop_ = true;
  }
  void saved(const std::filesystem::path& checkpoint) override { run_.saved.push_back(checkpoint); }

 private:
  TrainingJob::Run& run_;
  std::atomic<bool>& stop_;
  const int64_t stop_after_;
};

}  // namespace

TrainingJob::TrainingJob(const std::string& fixture) {
  const std::filesystem::path model =
      std::filesystem::path(FARSKIP_SOURCE_DIR) / "tests" / "fixtures" / fixture / "config.json";
  model_text_ = read_file(model);
  model_ = read_model_config(model);
  write_learnable_text(folder() / "train.tokens", 20000, 1);
  write_learnable_text(folder() / "valid.tokens", 2000, 2);
}

TrainConfig TrainingJob::config(const std::string& name) const {
  TrainConfig config;
  config.model = "made up";
  config.data = (folder() / "train.tokens").string();
  config.validation = (folder() / "valid.tokens").string();
  config.out = (folder() / name).string();
  config.sequence_length = 24;
  config.sequences = 8;
  config.steps = 6;
  config.learning_rate = 3e-3;
  config.final_learning_rate = 3e-4;
  config.warmup_steps = 5;
  config.log_every = 1;
  config.validation_sequences = 8;
  config.bucket_mib = 0.25;
  return config;
}

std::vector<double> TrainingJob::Run::losses() const {
  std::vector<double> all;
  for (const TrainReport& report : reports) all.push_back(report.loss);
  return all;
}

TrainingJob::Run TrainingJob::run(const TrainConfig& config, const Options& options) const {
  const Placement placement = training_placement(config, model_, options.ranks);
  std::vector<int> all(placement.ranks());
  std::iota(all.begin(), all.end(), 0);
  std::vector<Weights> weights = initial_weights(model_, placement, all, at::kFloat, config.seed);
  for (int rank = placement.ranks(); rank < options.ranks; ++rank) {
    weights.push_back(weights[static_cast<size_t>(rank % placement.ranks())]);
  }
  if (options.change_weights) options.change_weights(weights);
  const LocalOptions local{.deadline = std::chrono::duration<double>(20), .device = options.device};
  const std::vector<StageRank> ranks =
      config.pipeline_stages == 1
          ? in_one_stage(make_local_groups(options.ranks, local))
          : make_local_stages(config.pipeline_stages, options.ranks / config.pipeline_stages,
                              local);
  const Connectivity connectivity = Connectivity::preset(options.connectivity, model_.layers);
  const TokenFile data(config.data), validation(config.validation);
  Run run;
  std::atomic<bool> stop{false};
  Recorder recorder(run, stop, options.stop_after);
  run.result = train(config,
                     {.model = model_,
                      .model_config = model_text_,
                      .connectivity = connectivity,
                      .weights = weights,
                      .ranks = ranks,
                      .data = data,
                      .validation = &validation,
                      .resume = options.resume},
                     recorder, stop);
  return run;
}

void expect_near(const std::vector<double>& expected, const std::vector<double>& found,
                 size_t steps, double tolerance) {
  ASSERT_GE(expected.size(), steps);
  ASSERT_GE(found.size(), steps);
  for (size_t i = 0; i < steps; ++i) {
    EXPECT_LT(std::abs(found[i] / expected[i] - 1), tolerance) << "step " << i + 1;
  }
}

std::string state_bytes(const std::filesystem::path& checkpoint) {
  std::string bytes;
  for (int rank = 0;; ++rank) {
    const auto file = checkpoint / shard_file_name(rank);
    if (!std::filesystem::exists(file)) return bytes;
    bytes += read_file(file);
  }
}

}  // namespace farskip::testing
