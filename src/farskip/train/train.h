#pragma once

#include <array>
#include <atomic>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "farskip/comm/stages.h"
#include "farskip/io/token_file.h"
#include "farskip/io/weights.h"
#include "farskip/model/connectivity.h"
#include "farskip/train/train_config.h"

namespace farskip {

// A line of the log: the step it ends with, and means over the steps since the line before.
struct TrainReport {
  int64_t step = 0;    // steps done
  int64_t tokens = 0;  // trained on so far
  double loss = 0;     // of the last step, as the next two
  double learning_rate = 0, gradient_norm = 0;
  std::array<double, router_loss_count> router_losses{};  // of the last step, as they were added
  // Of each layer with experts, in order: the tokens of its most loaded one over the mean.
  std::vector<double> max_loads;
  double tokens_per_second = 0;
  // Of all ranks, by the graph's formulas; what is computed again does not count.
  double flops_per_second = 0;
  std::optional<double> percent_overlapped;  // of the last step on the reporting rank, as the rest
  double exposed_seconds = 0, step_seconds = 0;
  double peak_activation_bytes = 0;
};

// What is told of a run while it goes on, on the process that holds rank 0, from its thread.
class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  // Before the first step: what is trained, from where on.
  virtual void started(int64_t parameters, int64_t first_step, const std::string& graph) {}
  virtual void reported(const TrainReport& report) {}
  virtual void validated(int64_t step, double loss) {}
  virtual void saved(const std::filesystem::path& checkpoint) {}
};

// What a run is made of besides its settings. Everything must outlive the call of train.
struct TrainInputs {
  const ModelConfig& model;
  std::string model_config;  // its config.json, which checkpoints keep
  const Connectivity& connectivity;
  // weights[i] are those of ranks[i], ascending, whose dtype is fp32; of a stage's rank at least
  // those of its layers.
  std::span<const Weights> weights;
  const std::vector<StageRank>& ranks;
  const TokenFile& data;
  const TokenFile* validation = nullptr;
  bool resume = false;  // from the newest checkpoint in config.out
};

struct TrainResult {
  int64_t steps = 0;  // done, those before a resume counted
  double loss = 0;    // of the last one
  std::optional<double> validation_loss;
  bool stopped = false;  // before all steps were done, because `stop` was set
};

// Trains on this process's ranks, each on a thread of its own; where ranks live in several
// processes, every one makes the same call. A checkpoint is written at the end, also when `stop` is
// set (any thread may: the step at hand is finished). Throws ConfigError and FileError for inputs
// that do not fit, UsageError for a run folder that holds a run already when not resuming, or none
// when resuming; NumericError, naming step, op and tensor, when the loss or a gradient is not
// finite (the last checkpoint stays); CommError as the groups.
TrainResult train(const TrainConfig& config, const TrainInputs& inputs, TrainObserver& observer,
                  const std::atomic<bool>& stop);

}  // namespace farskip
