#include "farskip/runtime/step_plan.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "farskip/base/error.h"
#include "farskip/graph/cost.h"
#include "farskip/graph/differentiate.h"
#include "farskip/graph/rewrite.h"
#include "farskip/runtime/dtypes.h"

namespace farskip {

Durations nominal_durations(const Graph& graph) {
  Durations durations;
  for (const Op& op : graph.ops()) {
    if (op.kind == OpKind::join) {
      durations.push_back(0);
      continue;
    }
    const OpCost cost = cost_of(graph, op);
    const bool communicates = op.lane == Lane::communication;
    durations.push_back(communicates ? 20e-6 + cost.bytes_sent / 1e9
                                     : 5e-6 + cost.flops / 20e9 + cost.bytes_moved / 5e9);
  }
  return durations;
}

Graph build_step(const ModelConfig& model, const Connectivity& connectivity, int ranks,
                 std::span<const int64_t> lengths, const StepForm& form) {
  const double tokens =
      static_cast<double>(std::accumulate(lengths.begin(), lengths.end(), int64_t{0}));
  const double sequences = static_cast<double>(lengths.size());
  StepSpec spec;
  spec.ranks = ranks / std::max(1, form.data_parallel);
  if (spec.ranks * form.data_parallel != ranks) {
    throw GraphError("ranks do not divide into sets that share out the experts",
                     {.where = "data_parallel",
                      .expected = "a divisor of " + std::to_string(ranks) + " ranks",
                      .found = std::to_string(form.data_parallel)});
  }
  spec.tokens = tokens / ranks;
  spec.sequences = sequences / ranks;
  spec.context = sequences > 0 ? tokens / sequences : 0;
  spec.dtype = dtype_of(form.dtype);
  spec.wire = form.fp8_wire ? DType::float8_e4m3 : spec.dtype;
  spec.dispatch = form.dispatch;
  spec.routing = form.routing;
  spec.head = form.head;
  spec.data_parallel = form.data_parallel;
  if (form.goal != StepGoal::logits) spec.end = StepEnd::loss;
  if (form.goal == StepGoal::gradients) {
    spec.expert_loads = form.expert_loads;
    spec.router_losses = form.router_losses;
  }
  Graph graph = build_forward(model, connectivity, spec);
  if (form.goal == StepGoal::gradients) {
    graph = recompute(differentiate(graph, dtype_of(form.gradients)), form.recompute);
  }
  if (form.two_batch) graph = two_batch(graph);
  graph = pieces(expert_chunks(graph, form.expert_chunks), form.pieces);
  return form.fused && form.goal != StepGoal::gradients ? fuse(graph) : graph;
}

PlannedStep schedule_step(Graph graph, const std::string& schedule, const Durations& durations) {
  PlannedStep step{std::move(graph), {}};
  step.schedule = make_schedule(schedule, step.graph, durations);
  verify(step.graph, step.schedule);
  return step;
}

PlannedStep plan_step(const ModelConfig& model, const Connectivity& connectivity, int ranks,
                      std::span<const int64_t> lengths, const StepForm& form,
                      const DurationModel& durations) {
  Graph graph = build_step(model, connectivity, ranks, lengths, form);
  const Durations seconds = durations(graph);
  return schedule_step(std::move(graph), form.schedule, seconds);
}

}  // namespace farskip
