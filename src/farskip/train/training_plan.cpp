#include "farskip/train/training_plan.h"

#include <algorithm>
#include <string>
#include <utility>

#include "farskip/base/error.h"
#include "farskip/graph/pipeline.h"
#include "farskip/schedule/stages.h"

namespace farskip {
namespace {

StepForm form_of(const TrainConfig& config, StepGoal goal) {
  return {.schedule = config.schedule,
          .two_batch = config.two_batch && goal == StepGoal::gradients,
          .expert_chunks = config.expert_chunks,
          .pieces = config.pieces,
          .fused = false,  // stages are cut from it; without any it has the same bits
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

// The same for each stage; of one stage the step as it is.
std::vector<Graph> staged(const Graph& step, const ModelConfig& model, const TrainConfig& config,
                          int64_t micro_batches) {
  if (config.pipeline_stages == 1) return {step};
  return pipeline_stages(step, even_stages(model.layer_count(), config.pipeline_stages),
                         static_cast<int>(micro_batches));
}

std::set<std::string> parameters_of(const Graph& graph) {
  std::set<std::string> names;
  for (const Value& value : graph.values()) {
    if (value.kind == ValueKind::parameter) names.insert(value.name);
  }
  return names;
}

int routers_of(const Graph& graph) {
  return static_cast<int>(std::ranges::count_if(graph.ops(), [](const Op& op) {
    return op.kind == OpKind::router && op.attributes.micro_batch == 0;
  }));
}

void verify_together(const std::vector<TrainingPlan>& plans, PlannedStep TrainingPlan::*step) {
  std::vector<ScheduledStage> stages;
  for (const TrainingPlan& plan : plans) {
    stages.push_back({(plan.*step).graph, (plan.*step).schedule});
  }
  verify_stages(stages);
}

int ranks_of_stage(const TrainConfig& config, int ranks) {
  if (config.pipeline_stages >= 1 && ranks % config.pipeline_stages == 0) {
    return ranks / config.pipeline_stages;
  }
  throw UsageError("ranks do not divide into pipeline stages",
                   {.where = "--pipeline-stages",
                    .expected = "a divisor of " + std::to_string(ranks) + " ranks",
                    .found = std::to_string(config.pipeline_stages)});
}

}  // namespace

Placement training_placement(const TrainConfig& config, const ModelConfig& model, int ranks) {
  const int of_stage = ranks_of_stage(config, ranks);
  if (config.data_parallel < 1 || of_stage % config.data_parallel != 0) {
    throw UsageError("ranks do not divide into sets that share out the experts",
                     {.where = "--data-parallel",
                      .expected = "a divisor of " + std::to_string(of_stage) + " ranks",
                      .found = std::to_string(config.data_parallel)});
  }
  return Placement::contiguous(model.router.experts, of_stage / config.data_parallel);
}

std::vector<TrainingPlan> plan_training(const ModelConfig& model, const Connectivity& connectivity,
                                        int ranks, const TrainConfig& config) {
  const int of_stage = ranks_of_stage(config, ranks);
  const std::vector<int64_t> lengths(static_cast<size_t>(config.sequences / config.micro_batches),
                                     config.sequence_length);
  auto build = [&](StepGoal goal) {
    return build_step(model, connectivity, of_stage, lengths, form_of(config, goal));
  };
  const std::vector<Graph> backward =
      staged(build(StepGoal::gradients), model, config, config.micro_batches);
  const std::vector<Graph> validate = staged(build(StepGoal::loss), model, config, 1);
  std::vector<TrainingPlan> plans;
  int routers = 0;
  for (size_t stage = 0; stage < backward.size(); ++stage) {
    TrainingPlan plan;
    plan.parameters = parameters_of(backward[stage]);
    plan.buckets = plan_buckets(backward[stage], config.bucket_mib * 1024 * 1024);
    plan.micro_batches = config.pipeline_stages == 1 ? 1 : config.micro_batches;
    plan.update = scheduled(
        add_update(backward[stage], plan.buckets, of_stage, config.pipeline_stages), config);
    plan.accumulate = scheduled(backward[stage], config);
    plan.validate = scheduled(validate[stage], config);
    plan.first_router = routers;
    routers += routers_of(backward[stage]);
    plans.push_back(std::move(plan));
  }
  for (const auto step :
       {&TrainingPlan::update, &TrainingPlan::accumulate, &TrainingPlan::validate}) {
    verify_together(plans, step);
  }
  return plans;
}

Schedule rescheduled(const PlannedStep& step, const TrainConfig& config, const Durations& durations,
                     HostModel host) {
  Schedule schedule = make_schedule(config.schedule, step.graph, durations, {}, host);
  verify(step.graph, schedule);
  return schedule;
}

}  // namespace farskip
