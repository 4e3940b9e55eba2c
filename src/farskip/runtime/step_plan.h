#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "farskip/graph/build.h"
#include "farskip/graph/recompute.h"
#include "farskip/schedule/schedule.h"

namespace farskip {

// What a step is for: gradients are those of the loss by all weights (differentiate.h).
enum class StepGoal { logits, loss, gradients };

// How a step is put together; but for the router losses none of it changes what is computed, but
// for rounding.
struct StepForm {
  std::string schedule = "overlapped";  // blocking, released or overlapped
  bool two_batch = false;
  int expert_chunks = 1;
  int pieces = 1;
  bool fused = true;  // see fuse; not where gradients are computed, or stages are to be cut
  DispatchForm dispatch = DispatchForm::per_expert;
  bool fp8_wire = false;  // dispatch sends rows in FP8, with a scale per 128 values
  RoutingMode routing = RoutingMode::model;
  HeadRows head = HeadRows::all;
  at::ScalarType dtype = at::kFloat;
  int data_parallel = 1;  // sets of ranks that each share out all experts
  StepGoal goal = StepGoal::logits;
  at::ScalarType gradients = at::kFloat;          // dtype of the weights' gradients
  RecomputeKind recompute = RecomputeKind::none;  // of a step for gradients, as the next two
  bool expert_loads = false;                      // see StepSpec
  RouterLosses router_losses = {};
};

// A graph and a verified schedule of it.
struct PlannedStep {
  Graph graph;
  Schedule schedule;
};

// Seconds of every op of a graph, by OpId, for schedules that follow from costs.
using DurationModel = std::function<Durations(const Graph&)>;

// Durations of a typical CPU rank, for when nothing better is known: 20 GFLOP/s, 5 GB/s of memory,
// 1 GB/s and 20 us of link, 5 us an op.
Durations nominal_durations(const Graph& graph);

// The graph of a step of `ranks` ranks that share sequences of these lengths, rewritten as `form`
// says. Throws GraphError, also for ranks that data_parallel does not divide.
Graph build_step(const ModelConfig& model, const Connectivity& connectivity, int ranks,
                 std::span<const int64_t> lengths, const StepForm& form);

// A verified schedule of the graph. Throws ScheduleError, and UsageError for one of no such name.
PlannedStep schedule_step(Graph graph, const std::string& schedule, const Durations& durations);

// Both. Throws as they do.
PlannedStep plan_step(const ModelConfig& model, const Connectivity& connectivity, int ranks,
                      std::span<const int64_t> lengths, const StepForm& form,
                      const DurationModel& durations = nominal_durations);

}  // namespace farskip
