#include "farskip/comm/throttled.h"

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <thread>

#include "farskip/comm/local.h"
#include "farskip/comm/ranks.h"
#include "script.h"

namespace farskip {
namespace {

using namespace testing;

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

TEST(LinkSeconds, BusierDirectionCounts) {
  EXPECT_DOUBLE_EQ(link_seconds({2e9, 50e-6}, {.out = 1'000'000, .in = 4'000'000}), 50e-6 + 2e-3);
  EXPECT_DOUBLE_EQ(link_seconds({2e9, 50e-6}, {}), 50e-6);
}

TEST(Throttled, SaysWhatItIs) {
  const auto groups = make_throttled(make_local_groups(2), {2e9, 50e-6});
  EXPECT_EQ(groups[0]->describe(), "throttled(2.00 GB/s, 50.00 us) over local");
}

// The whole time of one collective on each rank, for rows of 4 kB each.
std::vector<double> measure(const Matrix& rows, LinkOptions link) {
  Random random(1);
  const auto groups = make_throttled(make_local_groups(static_cast<int>(rows.size())), link);
  const Step step = all_to_all_step(rows, {1024}, at::kFloat, random);
  std::vector<double> result(rows.size());
  run_ranks(groups, [&](Group& group) {
    const Work work = step.post(group);
    work.synchronize();
    const WorkTimes times = work.times();
    result[static_cast<size_t>(group.rank())] = seconds(times.finished - times.started);
  });
  for (size_t r = 0; r < rows.size(); ++r) {
    EXPECT_TRUE(same_bits(step.outputs[r], step.expected[r]));
  }
  return result;
}

TEST(Throttled, NeverFasterThanTheLinkAndNotMuchSlower) {
  // 10 rows of 4,096 bytes at 2 MB/s and 5 ms latency: 25.5 ms.
  const std::vector<double> took = measure({{3, 10}, {10, 3}}, {2e6, 5e-3});
  for (const double each : took) {
    EXPECT_GE(each, 5e-3 + 40960 / 2e6);
    EXPECT_LT(each, 10 * (5e-3 + 40960 / 2e6));
  }
}

TEST(Throttled, EachRankWaitsForItsOwnBusierDirection) {
  // Rank 0 sends 8 rows, ranks 1 and 2 receive 6 and 2; rows to oneself are free.
  const std::vector<double> took = measure({{0, 6, 2}, {0, 50, 0}, {0, 0, 0}}, {1e6, 0});
  EXPECT_GE(took[0], 8 * 4096 / 1e6);
  EXPECT_GE(took[1], 6 * 4096 / 1e6);
  EXPECT_LT(took[1], 50 * 4096 / 1e6);
  EXPECT_GE(took[2], 2 * 4096 / 1e6);
}

TEST(Throttled, OneRankNeedsNoLink) {
  const auto groups = make_throttled(make_local_groups(1), {1e-300, 1000});
  const Work work = groups[0]->all_reduce(at::zeros({4}), at::zeros({4}), 0);
  work.synchronize();
  EXPECT_LT(seconds(work.times().finished - work.times().started), 100);
}

TEST(Throttled, CollectivesQueueOnTheLink) {
  const auto groups = make_throttled(make_local_groups(2), {1e9, 4e-3});
  run_ranks(groups, [](Group& group) {
    std::vector<Work> works;
    for (Tag tag = 0; tag < 5; ++tag) works.push_back(group.barrier(tag));
    works.back().synchronize();
    for (size_t i = 0; i < works.size(); ++i) {
      ASSERT_TRUE(works[i].done());
      const WorkTimes times = works[i].times();
      EXPECT_GE(seconds(times.finished - times.started), 4e-3);
      if (i > 0) {
        EXPECT_GE(seconds(times.started - works[i - 1].times().started), 4e-3);
      }
    }
    EXPECT_GE(seconds(works[4].times().finished - works[0].times().started), 20e-3);
  });
}

TEST(Throttled, ACollectiveStartsWhenItsLastRankEnters) {
  const auto groups = make_throttled(make_local_groups(2), {1e9, 5e-3});
  const Work early = groups[0]->barrier(0);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const Work late = groups[1]->barrier(0);
  early.synchronize();
  late.synchronize();
  for (const Work& work : {early, late}) {
    EXPECT_EQ(work.times().started, late.times().posted);
    EXPECT_GE(seconds(work.times().finished - work.times().started), 5e-3);
  }
  EXPECT_GE(seconds(early.times().started - early.times().posted), 20e-3);
}

TEST(Throttled, ReportsItsOwnLateness) {
  const auto groups = make_throttled(make_local_groups(2), {1e9, 200e-6});
  EXPECT_FALSE(link_report(*make_local_groups(1)[0]));
  run_ranks(groups, [](Group& group) {
    const at::Tensor in = at::zeros({500}), out = at::zeros({1000});
    for (Tag tag = 0; tag < 20; ++tag) group.all_gather(out, in, tag).synchronize();
  });
  const auto one = link_report(*groups[0]), all = link_report(groups);
  ASSERT_TRUE(one && all);
  EXPECT_EQ(one->collectives, 20);
  EXPECT_EQ(all->collectives, 40);
  EXPECT_EQ(one->bytes_out, 20 * 2000);
  EXPECT_EQ(all->bytes_in, 40 * 2000);
  EXPECT_NEAR(one->link_seconds, 20 * (200e-6 + 2000 / 1e9), 1e-9);
  EXPECT_EQ(one->link.bytes_per_second, 1e9);
  EXPECT_GE(all->p50_late_us, 0);
  EXPECT_LE(all->p50_late_us, all->p99_late_us);
  EXPECT_LE(all->p99_late_us, all->max_late_us);
  EXPECT_GT(all->mean_late_us, 0);
  reset_link_report(*groups[0]);
  EXPECT_EQ(link_report(*groups[0])->collectives, 0);
}

TEST(Throttled, CopyLongerThanTheLinkCountsAsLateness) {
  const auto groups = make_throttled(make_local_groups(2), {1e15, 0});
  run_ranks(groups, [](Group& group) {
    const at::Tensor in = at::zeros({1 << 18}), out = at::zeros({1 << 19});
    group.all_gather(out, in, 0).synchronize();
  });
  EXPECT_GT(link_report(*groups[0])->mean_late_us, 1);
}

TEST(Throttled, SameBitsAsWithoutLink) {
  Random random(7);
  std::vector<Step> steps;
  for (int i = 0; i < 40; ++i) steps.push_back(random_step(3, random));
  run_and_check(make_throttled(make_local_groups(3), {1e9, 100e-6}), steps);
}

}  // namespace
}  // namespace farskip
