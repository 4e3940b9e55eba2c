#pragma once

#include <array>
#include <memory>
#include <vector>

#include "farskip/runtime/executor.h"
#include "farskip/runtime/shared_lane.h"
#include "farskip/train/checkpoint.h"
#include "farskip/train/training_data.h"
#include "farskip/train/training_plan.h"
#include "farskip/train/training_ranks.h"
#include "farskip/train/training_state.h"

namespace farskip {

// What a training step came to; the same on every rank but for `rank`.
struct TrainingStep {
  double loss = 0;           // mean over the step's labels
  double gradient_norm = 0;  // before clipping; not finite: nothing was updated
  double learning_rate = 0;
  // In the order of RouterLosses, as they were added to the loss that gradients are of.
  std::array<double, router_loss_count> router_losses{};
  at::Tensor expert_loads;  // int64 [routers, experts]: tokens of each over all ranks, on the CPU
  StepResult rank;          // of the step's last micro-batch on this rank
};

// One rank of a training run: its parameters, and steps on them. Collective: every rank makes the
// same calls. One thread, with one intra-op thread.
class RankTrainer {
 public:
  // `plan`: of this rank's stage. All arguments must outlive it, of `ranks` the groups. Throws as
  // Executor.
  RankTrainer(const ModelConfig& model, const Placement& placement, const TrainConfig& config,
              const TrainingPlan& plan, const TrainingRanks& ranks);

  ParameterStore& parameters() { return store_; }

  // Step `step`, from 0. Throws as Executor::run.
  TrainingStep step(const TrainingData& data, int64_t step);
  // The same step up to its gradients, stopping at the first value that is not finite. Throws
  // NumericError, on the rank that has it; others may throw CommError.
  void step_checked(const TrainingData& data, int64_t step);
  // Whether any rank says so.
  bool any(bool own);
  // The mean loss of sequences of the data in the file's order, as many as are there of
  // `sequences`, but at least one.
  double validate(const TrainingData& data, int64_t sequences);

  // Orders ops by how long they took in the step before, over all ranks of the stage.
  void reschedule();

  // Checkpoints of the whole run; throw as save_checkpoint and load_checkpoint.
  std::filesystem::path save(const std::filesystem::path& folder, const TrainingPoint& point);
  TrainingPoint load(const std::filesystem::path& checkpoint, uint64_t model_fingerprint);

 private:
  ExecutorOptions options();

  // From those of this stage's layers. All ranks get the same.
  at::Tensor loads_of_all_layers(const at::Tensor& own) const;
  void update_correction_biases(const at::Tensor& expert_loads);

  // Runs of a graph that make up a step.
  int64_t passes() const { return config_.micro_batches / plan_.micro_batches; }
  Batch batch_of_pass(const TrainingData& data, int64_t step, int64_t pass) const;

  const ModelConfig& model_;
  const Placement& placement_;
  const TrainConfig& config_;
  const TrainingPlan& plan_;
  const TrainingRanks ranks_;
  ParameterStore store_;
  TrainingState state_;
  const KernelTable kernels_;
  SharedLane shared_;  // by all executors: their steps run in turn
  Executor update_, accumulate_, validate_;
  Schedule update_schedule_;
  Timeline last_;  // of the update step
};

}  // namespace farskip
