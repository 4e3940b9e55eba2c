#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "farskip/graph/graph.h"
#include "farskip/schedule/evaluate.h"
#include "farskip/schedule/memory.h"
#include "farskip/schedule/schedule.h"

namespace farskip {
namespace {

// A random acyclic graph of compute and communication ops, some of which the host waits for.
Graph random_graph(std::mt19937& random) {
  GraphBuilder builder;
  const int count = std::uniform_int_distribution(2, 60)(random);
  std::vector<ValueId> values = {
      builder.add_value({.kind = ValueKind::input, .name = "input", .shape = {{4}}})};
  for (int i = 0; i < count; ++i) {
    std::vector<ValueId> inputs;
    const int fan_in = std::uniform_int_distribution(1, 3)(random);
    for (int j = 0; j < fan_in; ++j) {
      // Mostly recent values: chains with some long reach, as models have.
      const int reach = std::uniform_int_distribution(1, 8)(random);
      inputs.push_back(values[std::max<int>(0, static_cast<int>(values.size()) - reach)]);
    }
    const ValueId out = builder.add_value({.name = "value", .shape = {{8}}});
    const int kind = std::uniform_int_distribution(0, 9)(random);
    const OpKind op = kind < 6 ? OpKind::norm : kind < 9 ? OpKind::all_reduce : OpKind::counts;
    builder.add_op(op, {.layer = 1 + i / 6, .ranks = 2}, inputs, {out});
    values.push_back(out);
  }
  builder.add_output(values.back());
  return builder.finish();
}

Durations random_durations(const Graph& graph, std::mt19937& random) {
  Durations durations(graph.ops().size());
  for (double& seconds : durations) {
    const double draw = std::uniform_real_distribution(0.0, 1.0)(random);
    seconds = draw < 0.1 ? 0 : std::pow(10, 3 * draw - 6);
  }
  return durations;
}

TEST(ScheduleProperty, AlwaysValidNeverSlowerNeverBelowTheBound) {
  std::mt19937 random(7);
  for (int round = 0; round < 400; ++round) {
    SCOPED_TRACE(round);
    const Graph graph = random_graph(random);
    const Durations durations = random_durations(graph, random);
    const double slowdown = 1 + 0.3 * (round % 3);
    const Contention contention = {slowdown, 1 + 0.1 * (round % 2)};
    const double bound = lower_bound(graph, durations).seconds();
    // Behind either host: what one that computes would choose may be slow where it runs ahead.
    for (const HostModel host :
         {HostModel{}, HostModel{.computes = false, .launch_seconds = 1e-3}}) {
      const auto step_of = [&](const Schedule& schedule) {
        EXPECT_NO_THROW(verify(graph, schedule));
        const double step = evaluate(graph, schedule, durations, contention, host).step;
        EXPECT_GE(step, bound * (1 - 1e-9)) << schedule.name;
        return step;
      };
      const double others =
          std::min(step_of(blocking_schedule(graph)), step_of(released_schedule(graph)));
      EXPECT_LE(step_of(overlapped_schedule(graph, durations, contention, host)),
                others * (1 + 1e-9));
    }
  }
}

// Counts stop it nowhere for good, and it launches in an order that keeps what ops wait for.
TEST(ScheduleProperty, AHostThatRunsAheadGetsThroughEverySchedule) {
  std::mt19937 random(17);
  for (int round = 0; round < 200; ++round) {
    SCOPED_TRACE(round);
    const Graph graph = random_graph(random);
    const Durations durations = random_durations(graph, random);
    const double bound = lower_bound(graph, durations).seconds();
    const HostModel host = {.computes = false, .launch_seconds = round % 2 * 1e-4};
    for (const char* name : {"blocking", "released", "overlapped"}) {
      const OpTimes times =
          evaluate(graph, make_schedule(name, graph, durations), durations, {}, host);
      EXPECT_GE(times.step, bound * (1 - 1e-9)) << name;
      for (const Op& op : graph.ops()) {
        EXPECT_LE(times.launched[op.id] + host.launch_seconds, times.started[op.id] * (1 + 1e-9));
        for (OpId before : graph.predecessors(op.id)) {
          EXPECT_LE(times.ended[before], times.started[op.id] * (1 + 1e-9));
          if (graph.op(before).host_waits) {
            EXPECT_LE(times.ended[before], times.launched[op.id] * (1 + 1e-9));
          }
        }
      }
    }
  }
}

TEST(ScheduleProperty, BlockingTakesTheSumOfEverything) {
  std::mt19937 random(11);
  for (int round = 0; round < 100; ++round) {
    const Graph graph = random_graph(random);
    const Durations durations = random_durations(graph, random);
    double sum = 0;
    for (double seconds : durations) sum += seconds;
    const double step = evaluate(graph, blocking_schedule(graph), durations, {1.5, 1.5}).step;
    EXPECT_NEAR(step, sum, 1e-9 * sum);
  }
}

TEST(ScheduleProperty, MemoryPeakLiesBetweenTheLargestOpAndEverything) {
  std::mt19937 random(13);
  for (int round = 0; round < 50; ++round) {
    const Graph graph = random_graph(random);
    const double peak = peak_activation_bytes(graph, blocking_schedule(graph));
    EXPECT_GE(peak, 32);
    EXPECT_LE(peak, 32.0 * graph.ops().size());
  }
}

}  // namespace
}  // namespace farskip
