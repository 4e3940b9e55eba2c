#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "farskip/comm/local.h"
#include "farskip/comm/ranks.h"
#include "script.h"

namespace farskip {
namespace {

using namespace testing;

class Collectives : public ::testing::TestWithParam<int> {};

TEST_P(Collectives, AllToAllOfEveryPatternAndDtype) {
  run_and_check(make_local_groups(GetParam()), all_to_all_script(GetParam()));
}

TEST_P(Collectives, EveryOtherKindDtypeAndSize) {
  run_and_check(make_local_groups(GetParam()), other_kinds_script(GetParam()));
}

TEST_P(Collectives, TwoHundredMixedBackToBack) {
  run_and_check(make_local_groups(GetParam()), mixed_script(GetParam(), 200));
}

TEST_P(Collectives, AllReduceInPlace) {
  run_and_check(make_local_groups(GetParam()), in_place_script(GetParam()));
}

TEST_P(Collectives, TrafficCountsBytesToOtherRanksOnly) {
  const int ranks = GetParam();
  Random random(5);
  const auto groups = make_local_groups(ranks);
  const Matrix rows = variable_rows(ranks);
  run_and_check(groups, {all_to_all_step(rows, {4}, at::kFloat, random)});
  for (size_t r = 0; r < groups.size(); ++r) {
    int64_t sent = 0, received = 0;
    for (size_t peer = 0; peer < groups.size(); ++peer) {
      if (peer == r) continue;
      sent += rows[r][peer] * 16;
      received += rows[peer][r] * 16;
    }
    EXPECT_EQ(groups[r]->traffic().bytes_sent, sent);
    EXPECT_EQ(groups[r]->traffic().bytes_received, received);
    EXPECT_EQ(groups[r]->traffic().collectives, 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, Collectives, ::testing::Values(1, 2, 3, 4, 8));

TEST(CountBytes, RingFormulas) {
  const auto bytes = [](CollectiveKind kind, int64_t out, int64_t in, int rank = 0) {
    return count_bytes({.kind = kind,
                        .rank = rank,
                        .size = 4,
                        .out = at::empty({out}, at::kFloat),
                        .in = at::empty({in}, at::kFloat)});
  };
  EXPECT_EQ(bytes(CollectiveKind::all_reduce, 100, 100).out, 600);  // 2 * 3/4 * 400
  EXPECT_EQ(bytes(CollectiveKind::all_gather, 400, 100).in, 1200);  // 3/4 * 1600
  EXPECT_EQ(bytes(CollectiveKind::reduce_scatter, 100, 400).out, 1200);
  EXPECT_EQ(bytes(CollectiveKind::broadcast, 100, 100).out, 400);
  EXPECT_EQ(bytes(CollectiveKind::broadcast, 100, 100).in, 0);
  EXPECT_EQ(bytes(CollectiveKind::broadcast, 100, 100, 1).in, 400);
}

TEST(Collectives, PostingReturnsBeforeTheOthersEnter) {
  const auto groups = make_local_groups(2);
  const at::Tensor tensor = at::zeros({4});
  const Work work = groups[0]->broadcast(tensor, 1, 0);
  EXPECT_FALSE(work.done());
  EXPECT_THROW(work.times(), CommError);
  const Work other = groups[1]->broadcast(at::zeros({4}), 1, 0);
  work.synchronize();
  other.synchronize();
  EXPECT_EQ(work.times().started, other.times().started);
  EXPECT_GE(work.times().started, other.times().posted);
  EXPECT_EQ(work.error(), nullptr);
}

TEST(Collectives, InputsBelongToTheCallerAgainOnceDone) {
  static constexpr int64_t kCount = 1 << 18;
  run_ranks(make_local_groups(3), [](Group& group) {
    const at::Tensor tensor = at::zeros({kCount}, at::kLong);
    auto* const values = tensor.mutable_data_ptr<int64_t>();
    for (int64_t round = 1; round <= 20; ++round) {
      if (group.rank() == 0) std::fill_n(values, kCount, round);
      group.broadcast(tensor, 0, round).synchronize();
      EXPECT_EQ(std::count(values, values + kCount, round), kCount);
      // The root has nothing to copy, but may not be done before the others have copied from it.
      std::fill_n(values, kCount, -1);
    }
  });
}

TEST(Collectives, LetGoOfTensorsWhenDone) {
  const auto groups = make_local_groups(1);
  at::Tensor tensor = at::zeros({4});
  const Work work = groups[0]->broadcast(tensor, 0, 0);
  work.synchronize();
  EXPECT_EQ(tensor.use_count(), 1);
}

TEST(Collectives, GroupsDoNotMix) {
  Random random(6);
  const auto first = make_local_groups(2), second = make_local_groups(2);
  run_and_check(first, {random_step(2, random), random_step(2, random)});
  run_and_check(second, {random_step(2, random)});
  EXPECT_EQ(first[0]->describe(), "local");
}

TEST(Work, EmptyHandleThrows) {
  EXPECT_FALSE(Work().valid());
  EXPECT_THROW(Work().done(), CommError);
  EXPECT_THROW(Work().synchronize(), CommError);
}

}  // namespace
}  // namespace farskip
