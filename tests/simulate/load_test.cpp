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
  EXPECT_DOUBLE_EQ(load.factor(0, 0.3), 1);
  EXPECT_DOUBLE_EQ(load.factor(0, 0.5), 1);
  EXPECT_DOUBLE_EQ(load.factor(0, 0.75), 1 + 0.2 / 4);
  EXPECT_DOUBLE_EQ(load.factor(0, 1), 1.2);
  EXPECT_DOUBLE_EQ(load.factor(0, 1.1), 1.2);
  EXPECT_DOUBLE_EQ(LoadModel{}.factor(0, 1), 1);
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
  for (OpId op : {0, 2, 3}) EXPECT_NEAR(loaded[op], paused[op] * load.factor(op, busy), 5e-3);
  EXPECT_EQ(loaded[1], paused[1]);
}

// Of a diamond: compute a, c and d around communication b.
LoadRun run_of(Durations seconds, Durations overlapped, double step) {
  LoadRun run{.metrics = {}, .seconds = std::move(seconds), .overlapped = std::move(overlapped)};
  run.metrics.step = step;
  run.metrics.compute = run.seconds[0] + run.seconds[2] + run.seconds[3];
  run.metrics.communication = run.seconds[1];
  for (double both : run.overlapped) run.metrics.overlapped += both;
  return run;
}

// Both lanes ran for 4 s beside c, of the kind of a, which lost 2: 1 to contention of 4 / 3, 1 to
// the load, which d feels less.
TEST(Load, IsWhatContentionDoesNotExplainOfAKind) {
  const LoadRun rested = run_of({4, 2, 4, 2}, {0, 0, 0, 0}, 16);
  const LoadRun steady = run_of({4, 5, 6, 2.1}, {0, 0, 4, 0}, 12.5);
  const LoadFit fit = fit_load(diamond(), rested, steady, {4.0 / 3, 1.5});
  EXPECT_DOUBLE_EQ(fit.load.rested, 10.0 / 16);
  EXPECT_DOUBLE_EQ(fit.load.steady, 12.1 / 12.5);
  EXPECT_DOUBLE_EQ(fit.load.slowdown, 1.11);
  EXPECT_EQ(fit.contention.communication, 1.5);
  const double busy = fit.load.steady;
  for (OpId op : {0, 2}) EXPECT_DOUBLE_EQ(fit.load.factor(op, busy), 1 + 1.0 / 8) << op;
  EXPECT_DOUBLE_EQ(fit.load.factor(3, busy), 1.05);
  for (OpId op : {0, 2, 3}) EXPECT_DOUBLE_EQ(fit.contention.of_compute(op), 4.0 / 3) << op;
}

TEST(Load, LeavesContentionNoMoreThanAKindLost) {
  const LoadRun rested = run_of({4, 2, 4, 2}, {0, 0, 0, 0}, 16);
  const auto contention = [&](double c_took, double measured) {
    const LoadRun steady = run_of({4, 5, c_took, 2}, {0, 0, 4, 1}, 12.5);
    const LoadFit fit = fit_load(diamond(), rested, steady, {measured, 1});
    EXPECT_DOUBLE_EQ(fit.load.factor(3, 1), 1);
    EXPECT_EQ(fit.contention.of_compute(3), 1) << "d lost nothing beside communication";
    return fit.contention.of_compute(2);
  };
  EXPECT_DOUBLE_EQ(contention(6, 8), 2);
  EXPECT_DOUBLE_EQ(contention(3, 8), 1);
}

TEST(Load, AndContentionAreTheMeasuredOnesWhereComputeWaitedAllTheSame) {
  const LoadRun rested = run_of({4, 4, 4, 2}, {0, 0, 0, 0}, 16);
  const LoadRun steady = run_of({4, 4, 5, 2}, {0, 0, 1.5, 0}, 14);
  const LoadFit fit = fit_load(diamond(), rested, steady, {2, 1});
  EXPECT_EQ(fit.contention.of_compute(2), 2);
  EXPECT_EQ(fit.load.factor(2, 1), 1);
}

TEST(Load, MeasuredNowhereChangesNothing) {
  EXPECT_DOUBLE_EQ(step_under_load("overlapped", durations, {}), 4);
  const Graph graph = diamond();
  EXPECT_THROW(durations_under_load(graph, blocking_schedule(graph), {1, 1}, load), ScheduleError);
}

}  // namespace
}  // namespace farskip
