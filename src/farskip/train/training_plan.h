#pragma once

#include <set>
#include <string>
#include <vector>

#include "farskip/graph/update.h"
#include "farskip/runtime/step_plan.h"
#include "farskip/train/train_config.h"

namespace farskip {

// The steps of one pipeline stage of a run: the same on each of its ranks.
struct TrainingPlan {
  std::set<std::string> parameters;  // that the stage has
  std::vector<ParameterBucket> buckets;
  // Forward and backward of so many micro-batches at once: of one, or, with stages, of all.
  int64_t micro_batches = 1;
  PlannedStep update;      // they and the update
  PlannedStep accumulate;  // those before the last
  PlannedStep validate;    // forward
  int first_router = 0;    // routers of the stages before
};

// Where experts are: rank r of a stage has those of the placement's rank r % its ranks. `ranks`: of
// all stages. Throws UsageError for ranks that pipeline_stages or data_parallel do not divide.
Placement training_placement(const TrainConfig& config, const ModelConfig& model, int ranks);

// By stage. Scheduled by nominal durations; `rescheduled` once real ones are known. `ranks`: of all
// stages. Throws as plan_step and pipeline_stages.
std::vector<TrainingPlan> plan_training(const ModelConfig& model, const Connectivity& connectivity,
                                        int ranks, const TrainConfig& config);

// The same step in another order, for the host behind it: results keep their bits.
Schedule rescheduled(const PlannedStep& step, const TrainConfig& config, const Durations& durations,
                     HostModel host);

}  // namespace farskip
