#include "farskip/schedule/evaluate.h"

#include <gtest/gtest.h>

#include "farskip/schedule/memory.h"

namespace farskip {
namespace {

// compute a -> counts b, for which the host waits -> dispatch c; compute d is independent, compute
// e reads c and d.
Graph with_counts() {
  GraphBuilder builder;
  auto value = [&](int64_t rows = 8) {
    return builder.add_value({.name = "value", .shape = {{rows}}});
  };
  const ValueId in = builder.add_value({.kind = ValueKind::input, .name = "in", .shape = {{8}}});
  const ValueId a = value(), b = value(64), c = value(), d = value(), e = value();
  builder.add_op(OpKind::norm, {}, {in}, {a});
  builder.set_host_waits(builder.add_op(OpKind::all_reduce, {.ranks = 2}, {a}, {b}));
  builder.add_op(OpKind::all_reduce, {.ranks = 2}, {b}, {c});
  builder.add_op(OpKind::norm, {}, {in}, {d});
  builder.add_op(OpKind::sum, {}, {c, d}, {e});
  builder.add_output(e);
  return builder.finish();
}

constexpr HostModel runs_ahead = {.computes = false};

TEST(Evaluate, AHostThatRunsAheadDoesNotStandStillAtCounts) {
  const Graph graph = with_counts();
  const Schedule schedule = schedule_from_order(graph, "x", {0, 1, 2, 3, 4});
  const Durations durations = {1, 2, 1, 3, 1};
  const OpTimes times = evaluate(graph, schedule, durations, {}, runs_ahead);
  EXPECT_DOUBLE_EQ(times.started[3], 1);  // beside counts
  EXPECT_DOUBLE_EQ(times.started[2], 3);
  EXPECT_DOUBLE_EQ(times.step, 5);
  // A host that computes itself gets to d when c is launched.
  EXPECT_DOUBLE_EQ(evaluate(graph, schedule, durations).started[3], 3);
}

TEST(Evaluate, AHostThatRunsAheadTakesTimeToLaunch) {
  const Graph graph = with_counts();
  const Schedule schedule = schedule_from_order(graph, "x", {0, 1, 2, 3, 4});
  HostModel host = runs_ahead;
  host.launch_seconds = 0.5;
  const OpTimes times = evaluate(graph, schedule, {1, 2, 1, 3, 1}, {}, host);
  EXPECT_DOUBLE_EQ(times.started[0], 0.5);
  EXPECT_DOUBLE_EQ(times.started[3], 1.5);
  EXPECT_DOUBLE_EQ(times.started[2], 4);  // counts end at 3.5, and the dispatch is launched then
  EXPECT_DOUBLE_EQ(times.step, 6);
}

// What is launched ahead is there before counts are gone: d is, unless they are known at once.
TEST(Evaluate, MemoryFollowsHowFarTheHostRunsAhead) {
  const Graph graph = with_counts();
  const Schedule schedule = schedule_from_order(graph, "x", {0, 1, 2, 3, 4});
  const auto peak = [&](double seconds) {
    const OpTimes times = evaluate(graph, schedule, {seconds, seconds, 1, 3, 1}, {}, runs_ahead);
    return peak_activation_bytes(graph, schedule, {.on_device = &times});
  };
  EXPECT_EQ(peak(0), peak_activation_bytes(graph, schedule));
  EXPECT_GT(peak(2), peak_activation_bytes(graph, schedule));
}

}  // namespace
}  // namespace farskip
