#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "farskip/graph/graph.h"

namespace farskip {

// Seconds of every op, by OpId; join ops take none.
using Durations = std::vector<double>;

// How much slower a lane runs while the other one is busy: 1 is not at all.
struct Contention {
  double compute = 1.0, communication = 1.0;
  std::vector<double> by_op = {};  // of compute ops, by OpId, where they differ; else `compute`
  double of_compute(OpId op) const { return by_op.empty() ? compute : by_op[op]; }
};

// How the executor behind a schedule behaves.
struct HostModel {
  // The host itself computes (CPU ranks): it launches nothing while a compute op runs. Otherwise
  // (GPU) it runs ahead and stops only where it needs counts.
  bool computes = true;
  double launch_seconds = 0;  // per op, on the host
};

// One launch. The host goes through the steps in order; each lane runs its ops in that order.
struct Step {
  OpId op = none;
  Lane lane = Lane::compute;
  std::vector<OpId> wait_for;       // on the other lane, to be finished before this one starts
  std::vector<ValueId> free_after;  // read by no later step
  bool operator==(const Step&) const = default;
};

// The order in which the host launches the ops of a graph, and what each waits for.
struct Schedule {
  std::string name;
  uint64_t graph_hash = 0;
  std::vector<Step> steps;
};

// Proves that the schedule fits the graph: every op once; predecessors earlier in launch order and,
// where they are on another lane, waited for (directly or through the lane's order); nothing freed
// before its last use, or twice. Throws ScheduleError naming the ops.
void verify(const Graph& graph, const Schedule& schedule);

// A launch order with the waits and frees that it needs. With `block`, every step also waits for
// all that was launched before it on the other lane. Throws ScheduleError if the order breaks a
// dependency.
Schedule schedule_from_order(const Graph& graph, std::string name, const std::vector<OpId>& order,
                             bool block = false);

// Program order, and every communication waited for at once: what frameworks do today.
Schedule blocking_schedule(const Graph& graph);

// The fixed order of the released FarSkip training code: attention inputs, then (combine done) sum,
// norm, router, dispatch; attention core and output projection beside dispatch; experts; shared
// experts and the next layer's attention inputs beside combine. Where a connectivity does not
// allow that order, the next op in it that can run goes first. Behind the loss the same order
// backwards, as that code makes autograd go: combine's gradient beside that of the next layer's
// attention inputs and of the shared experts, dispatch's beside those of output projection and
// attention core; weight gradients with the gradient in front of them; what is computed again right
// before it is read.
Schedule released_schedule(const Graph& graph);

// Cost-driven: the fastest, in simulation, of list schedules under several priorities and of the
// two above; so never slower than either at these durations. With a backward pass, where schedules
// can hold several times what others do, one that holds less may win over one that is faster by a
// little.
Schedule overlapped_schedule(const Graph& graph, const Durations& durations,
                             const Contention& contention = {}, HostModel host = {});

// By name: blocking, released, overlapped. Throws UsageError.
Schedule make_schedule(std::string_view name, const Graph& graph, const Durations& durations,
                       const Contention& contention = {}, HostModel host = {});

// No schedule of this graph can be faster: max(compute, communication, path).
struct LowerBound {
  double compute = 0, communication = 0, path = 0;
  double seconds() const;
  const char* limit() const;  // "compute", "communication" or "path"
};
LowerBound lower_bound(const Graph& graph, const Durations& durations);

}  // namespace farskip
