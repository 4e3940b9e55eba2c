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

// Of what runs ahead and is recorded, what one op makes for the next alone goes at once.
TEST(Evaluate, MemoryOfWhatIsRecordedGoesWithItsLastReader) {
  GraphBuilder builder;
  auto value = [&](int64_t rows) {
    return builder.add_value({.name = "value", .shape = {{rows}}});
  };
  const ValueId in = builder.add_value({.kind = ValueKind::input, .name = "in", .shape = {{8}}});
  const ValueId counts = value(8), received = value(8), made = value(64), read = value(8);
  const ValueId again = value(64), out = value(8);
  builder.set_host_waits(builder.add_op(OpKind::all_reduce, {.ranks = 2}, {in}, {counts}));
  builder.add_op(OpKind::all_reduce, {.ranks = 2}, {counts}, {received});
  builder.add_op(OpKind::norm, {}, {in}, {made});
  builder.add_op(OpKind::norm, {}, {made}, {read});
  builder.add_op(OpKind::norm, {}, {read}, {again});
  builder.add_op(OpKind::sum, {}, {received, again}, {out});
  builder.add_output(out);
  const Graph graph = builder.finish();
  const Schedule schedule = schedule_from_order(graph, "x", {0, 1, 2, 3, 4, 5});
  const OpTimes times = evaluate(graph, schedule, {2, 1, 1, 1, 1, 1}, {}, runs_ahead);
  const double held = peak_activation_bytes(graph, schedule, {.on_device = &times});
  const double recorded =
      peak_activation_bytes(graph, schedule, {.on_device = &times, .recorded = true});
  EXPECT_EQ(held - recorded, (64 + 8) * 4.0);  // `made` and `read`, beside `again`
}

}  // namespace
}  // namespace farskip
