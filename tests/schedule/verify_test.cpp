#include <gtest/gtest.h>

#include "diamond.h"
#include "farskip/base/error.h"
#include "farskip/schedule/evaluate.h"
#include "farskip/schedule/schedule.h"

namespace farskip {
namespace {

using testing::diamond;

TEST(Verify, AcceptsWhatTheSchedulersMake) {
  const Graph graph = diamond();
  for (const char* name : {"blocking", "released", "overlapped"}) {
    EXPECT_NO_THROW(verify(graph, make_schedule(name, graph, {1, 1, 1, 1}))) << name;
  }
}

TEST(Verify, OverlapHidesTheIndependentOp) {
  const Graph graph = diamond();
  const Durations durations = {1, 2, 2, 1};
  EXPECT_DOUBLE_EQ(evaluate(graph, blocking_schedule(graph), durations).step, 6);
  EXPECT_DOUBLE_EQ(evaluate(graph, overlapped_schedule(graph, durations), durations).step, 4);
  // Both lanes busy for 2 s at half speed: compute c takes 4 s, communication too.
  const Contention half = {2, 2};
  EXPECT_DOUBLE_EQ(
      evaluate(graph, schedule_from_order(graph, "x", {0, 1, 2, 3}), durations, half).step, 6);
}

TEST(Verify, ContentionMatchesTheClosedForm) {
  // docs/formulas.md: c s >= t: T = c + t (1 - 1/s); else max(t, c s).
  const Graph graph = diamond();
  const Schedule schedule = schedule_from_order(graph, "x", {0, 1, 2, 3});
  const double s = 1.2;
  auto step = [&](double c, double t) {
    return evaluate(graph, schedule, {0, t, c, 0}, {s, 1.0}).step;
  };
  EXPECT_NEAR(step(3, 1), 3 + 1 * (1 - 1 / s), 1e-12);
  EXPECT_NEAR(step(1, 3), 3, 1e-12);
  EXPECT_NEAR(step(1, 1.1), 1 + 1.1 * (1 - 1 / s), 1e-12);
}

TEST(Verify, RefusesBrokenSchedules) {
  const Graph graph = diamond();
  const Schedule good = blocking_schedule(graph);
  Schedule bad = good;
  bad.graph_hash ^= 1;
  EXPECT_THROW(verify(graph, bad), ScheduleError);
  bad = good;
  bad.steps.pop_back();
  EXPECT_THROW(verify(graph, bad), ScheduleError);
  bad = good;
  bad.steps[3] = bad.steps[0];
  EXPECT_THROW(verify(graph, bad), ScheduleError);
  bad = good;
  std::swap(bad.steps[0], bad.steps[3]);
  EXPECT_THROW(verify(graph, bad), ScheduleError);
  bad = good;
  for (Step& step : bad.steps) step.wait_for.clear();
  EXPECT_THROW(verify(graph, bad), ScheduleError);
  bad = good;
  bad.steps[0].free_after.push_back(graph.op(0).outputs[0]);
  EXPECT_THROW(verify(graph, bad), ScheduleError);
  bad = good;
  bad.steps[3].free_after.push_back(graph.outputs()[0]);
  EXPECT_THROW(verify(graph, bad), ScheduleError);
  EXPECT_THROW(schedule_from_order(graph, "x", {1, 0, 2, 3}), ScheduleError);
  EXPECT_THROW(make_schedule("fast", graph, {1, 1, 1, 1}), UsageError);
}

TEST(Bound, IsTheLargestOfThree) {
  const Graph graph = diamond();
  EXPECT_STREQ(lower_bound(graph, {1, 2, 2, 1}).limit(), "compute");
  EXPECT_STREQ(lower_bound(graph, {1, 5, 1, 1}).limit(), "path");
  EXPECT_DOUBLE_EQ(lower_bound(graph, {1, 5, 1, 1}).seconds(), 7);
}

}  // namespace
}  // namespace farskip
