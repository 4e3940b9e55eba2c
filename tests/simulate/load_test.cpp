#include "farskip/simulate/load.h"

#include <gtest/gtest.h>

#include "../schedule/diamond.h"
#include "farskip/base/error.h"

namespace farskip {
namespace {

using testing::diamond;

const Durations durations = {1, 2, 2, 1};
const LoadModel load = {.rested = 0.5, .steady = 1, .slowdown = 1.2};

double step_under_load(const char* schedule, const Durations& durations, const LoadModel& load) {
  const Graph graph = diamond();
  const Schedule made = make_schedule(schedule, graph, durations);
  return evaluate(graph, made, durations_under_load(graph, made, durations, load)).step;
}

TEST(Load, GrowsLateBetweenRestedAndSteady) {
  EXPECT_DOUBLE_EQ(load.factor(0.3), 1);
  EXPECT_DOUBLE_EQ(load.factor(0.5), 1);
  EXPECT_DOUBLE_EQ(load.factor(0.75), 1 + 0.2 / 4);
  EXPECT_DOUBLE_EQ(load.factor(1), 1.2);
  EXPECT_DOUBLE_EQ(load.factor(1.1), 1.2);
  EXPECT_DOUBLE_EQ(LoadModel{}.factor(1), 1);
}

TEST(Load, SlowsWhatNeverRests) {
  // Compute a, c and d fill the step: each takes all of its factor.
  EXPECT_DOUBLE_EQ(step_under_load("overlapped", durations, load), 1.2 * 4);
}

TEST(Load, LeavesAStepAloneThatRestsAsMuch) {
  LoadModel as_blocking = load;
  as_blocking.rested = 4.0 / 6;
  EXPECT_DOUBLE_EQ(step_under_load("blocking", durations, as_blocking), 6);
}

TEST(Load, SettlesInBetween) {
  // A longer collective leaves a pause: the step rests for what is left of it.
  const Durations paused = {1, 3, 2, 1};
  const Graph graph = diamond();
  const Schedule schedule = make_schedule("overlapped", graph, paused);
  const Durations loaded = durations_under_load(graph, schedule, paused, load);
  const OpTimes times = evaluate(graph, schedule, loaded);
  const double busy = (loaded[0] + loaded[2] + loaded[3]) / times.step;
  EXPECT_LT(busy, 1);
  EXPECT_GT(busy, 4.0 / 5);
  for (OpId op : {0, 2, 3}) EXPECT_NEAR(loaded[op], paused[op] * load.factor(busy), 5e-3);
  EXPECT_EQ(loaded[1], paused[1]);
}

// Both lanes ran for 4 s, in which compute lost 2: 1 to contention of 4 / 3, 1 to the load.
TEST(Load, IsWhatContentionDoesNotExplain) {
  OverlapMetrics rested, steady;
  rested.step = 16, rested.compute = 10;
  steady.step = 12.5, steady.compute = 12, steady.communication = 5, steady.overlapped = 4;
  const LoadFit fit = fit_load(rested, steady, {4.0 / 3, 1.5});
  EXPECT_DOUBLE_EQ(fit.load.rested, 10.0 / 16);
  EXPECT_DOUBLE_EQ(fit.load.steady, 12 / 12.5);
  EXPECT_DOUBLE_EQ(fit.load.slowdown, 1.1);
  EXPECT_DOUBLE_EQ(fit.contention.compute, 4.0 / 3);
  EXPECT_EQ(fit.contention.communication, 1.5);
}

TEST(Load, LeavesContentionNoMoreThanWasLost) {
  OverlapMetrics rested, steady;
  rested.step = 16, rested.compute = 10;
  steady.step = 12.5, steady.compute = 12, steady.communication = 5, steady.overlapped = 4;
  EXPECT_DOUBLE_EQ(fit_load(rested, steady, {8, 1}).load.slowdown, 1);
  EXPECT_DOUBLE_EQ(fit_load(rested, steady, {8, 1}).contention.compute, 2);
  steady.compute = 9;
  EXPECT_DOUBLE_EQ(fit_load(rested, steady, {8, 1}).contention.compute, 1);
  steady.overlapped = 2;
  EXPECT_EQ(fit_load(rested, steady, {8, 1}).contention.compute, 8) << "it waited all the same";
}

TEST(Load, MeasuredNowhereChangesNothing) {
  EXPECT_DOUBLE_EQ(step_under_load("overlapped", durations, {}), 4);
  const Graph graph = diamond();
  EXPECT_THROW(durations_under_load(graph, blocking_schedule(graph), {1, 1}, load), ScheduleError);
}

}  // namespace
}  // namespace farskip
