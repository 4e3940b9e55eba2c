#pragma once

#include <vector>

#include "farskip/graph/update.h"
#include "farskip/runtime/step_plan.h"
#include "farskip/train/train_config.h"

namespace farskip {

// The steps of a run: the same on every rank.
struct TrainingPlan {
  std::vector<ParameterBucket> buckets;
  PlannedStep update;      // forward, backward, update
  PlannedStep accumulate;  // forward and backward of a micro-batch before the last
  PlannedStep validate;    // forward
};

// Where experts are: rank r of the run has those of the placement's rank r % its ranks. Throws
// UsageError for ranks that are no multiple of data_parallel.
Placement training_placement(const TrainConfig& config, const ModelConfig& model, int ranks);

// Scheduled by nominal durations; `rescheduled` once real ones are known. Throws as plan_step.
TrainingPlan plan_training(const ModelConfig& model, const Connectivity& connectivity, int ranks,
                           const TrainConfig& config);

// The same step in another order: results keep their bits.
Schedule rescheduled(const PlannedStep& step, const TrainConfig& config,
                     const Durations& durations);

}  // namespace farskip
