#include "farskip/train/training_plan.h"

#include <string>
#include <utility>

#include "farskip/base/error.h"

namespace farskip {
namespace {

StepForm form_of(const TrainConfig& config, StepGoal goal) {
  return {.schedule = config.schedule,
          .two_batch = config.two_batch && goal == StepGoal::gradients,
          .expert_chunks = config.expert_chunks,
          .pieces = config.pieces,
          .routing = config.routing == "balanced" ? RoutingMode::balanced : RoutingMode::model,
          .dtype = config.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat,
          .data_parallel = config.data_parallel,
          .goal = goal,
          .recompute = recompute_kind(config.recompute),
          .expert_loads = true,
          .router_losses = config.router_losses()};
}

PlannedStep scheduled(Graph graph, const TrainConfig& config) {
  const Durations durations = nominal_durations(graph);
  return schedule_step(std::move(graph), config.schedule, durations);
}

}  // namespace

Placement training_placement(const TrainConfig& config, const ModelConfig& model, int ranks) {
  if (config.data_parallel < 1 || ranks % config.data_parallel != 0) {
    throw UsageError("ranks do not divide into sets that share out the experts",
                     {.where = "--data-parallel",
                      .expected = "a divisor of " + std::to_string(ranks) + " ranks",
                      .found = std::to_string(config.data_parallel)});
  }
  return Placement::contiguous(model.router.experts, ranks / config.data_parallel);
}

TrainingPlan plan_training(const ModelConfig& model, const Connectivity& connectivity, int ranks,
                           const TrainConfig& config) {
  const std::vector<int64_t> lengths(static_cast<size_t>(config.sequences / config.micro_batches),
                                     config.sequence_length);
  const Graph backward =
      build_step(model, connectivity, ranks, lengths, form_of(config, StepGoal::gradients));
  TrainingPlan plan;
  plan.buckets = plan_buckets(backward, config.bucket_mib * 1024 * 1024);
  plan.update = scheduled(add_update(backward, plan.buckets, ranks), config);
  plan.accumulate = scheduled(backward, config);
  plan.validate = scheduled(
      build_step(model, connectivity, ranks, lengths, form_of(config, StepGoal::loss)), config);
  return plan;
}

Schedule rescheduled(const PlannedStep& step, const TrainConfig& config,
                     const Durations& durations) {
  Schedule schedule = make_schedule(config.schedule, step.graph, durations);
  verify(step.graph, schedule);
  return schedule;
}

}  // namespace farskip
