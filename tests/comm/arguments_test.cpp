#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "farskip/comm/chaos.h"
#include "farskip/comm/local.h"
#include "farskip/comm/throttled.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;
using Counts = std::vector<int64_t>;

std::string message(const std::function<void()>& function) {
  try {
    function();
  } catch (const CommError& error) {
    return error.what();
  }
  return "";
}

class Arguments : public ::testing::Test {
 protected:
  std::vector<std::unique_ptr<Group>> groups_ = make_local_groups(2);
  Group& group_ = *groups_[0];
};

TEST_F(Arguments, AllToAllRowCounts) {
  const at::Tensor four = at::zeros({4, 3}), out = at::zeros({4, 3});
  const auto call = [&](const Counts& out_rows, const Counts& in_rows) {
    return message([&] { group_.all_to_all(out, four, out_rows, in_rows, 9); });
  };
  EXPECT_THAT(call({2, 2}, {4}), HasSubstr("in_rows has the wrong length"));
  EXPECT_THAT(call({2, 2}, {4}), HasSubstr("all_to_all, tag 9, rank 0"));
  EXPECT_THAT(call({2, 2}, {5, -1}), HasSubstr("counts of 0 and more"));
  EXPECT_THAT(call({2, 2}, {1, 2}), HasSubstr("expected 3 rows"));
  const int64_t huge = std::numeric_limits<int64_t>::max();
  EXPECT_THAT(call({huge, huge}, {2, 2}), HasSubstr("out_rows is no list"));
}

TEST_F(Arguments, TensorsThatDoNotFit) {
  const Counts two = {1, 1};
  EXPECT_THROW(group_.all_to_all(at::zeros({2, 3}), at::zeros({2, 4}), two, two, 0), CommError);
  EXPECT_THROW(group_.all_to_all(at::zeros({2}), at::zeros({2}, at::kLong), two, two, 0),
               CommError);
  EXPECT_THROW(group_.all_to_all(at::zeros({}), at::zeros({}), two, two, 0), CommError);
  EXPECT_THROW(group_.all_to_all(at::Tensor(), at::zeros({2}), two, two, 0), CommError);
  EXPECT_THROW(group_.all_gather(at::zeros({3}), at::zeros({2}), 0), CommError);
  EXPECT_THROW(group_.all_gather(at::zeros({}), at::zeros({}), 0), CommError);
  EXPECT_THROW(group_.reduce_scatter(at::zeros({2}), at::zeros({3}), 0), CommError);
  EXPECT_THROW(group_.all_reduce(at::zeros({2, 3}), at::zeros({3, 2}), 0), CommError);
  EXPECT_THROW(group_.all_reduce(at::zeros({2}, at::kBool), at::zeros({2}, at::kBool), 0),
               UnsupportedError);
  EXPECT_THROW(group_.broadcast(at::zeros({2}), 2, 0), CommError);
  EXPECT_THROW(group_.broadcast(at::zeros({2}), -1, 0), CommError);
  EXPECT_THROW(group_.broadcast(at::zeros({2, 3}).t(), 0, 0), CommError);
  EXPECT_THROW(group_.broadcast(at::empty({2}, at::TensorOptions(at::kMeta)), 0, 0), CommError);
}

TEST_F(Arguments, OverlappingMemory) {
  const at::Tensor base = at::zeros({8});
  EXPECT_THAT(message([&] { group_.all_reduce(base.narrow(0, 0, 5), base.narrow(0, 3, 5), 0); }),
              HasSubstr("overlaps"));
  EXPECT_THAT(message([&] { group_.all_gather(base, base.narrow(0, 0, 4), 0); }),
              HasSubstr("overlaps"));
}

TEST_F(Arguments, ARejectedCallDoesNotCount) {
  EXPECT_THROW(group_.broadcast(at::zeros({2}), 2, 0), CommError);
  const Work a = group_.barrier(1), b = groups_[1]->barrier(1);
  a.synchronize();
  b.synchronize();
}

TEST(Options, OutOfRange) {
  EXPECT_THROW(make_local_groups(0), UsageError);
  EXPECT_THROW(make_local_groups(257), UsageError);
  using Seconds = std::chrono::duration<double>;
  for (const double deadline : {0.0, -1.0, std::nan(""), HUGE_VAL}) {
    EXPECT_THROW(make_local_groups(1, {.deadline = Seconds(deadline)}), UsageError);
  }
  for (const double bandwidth : {0.0, -1.0, std::nan(""), HUGE_VAL}) {
    EXPECT_THROW(make_throttled(make_local_groups(1), {.bytes_per_second = bandwidth}), UsageError);
  }
  for (const double latency : {-1e-6, std::nan(""), HUGE_VAL}) {
    EXPECT_THROW(
        make_throttled(make_local_groups(1), {.bytes_per_second = 1, .latency_seconds = latency}),
        UsageError);
  }
  EXPECT_THROW(make_chaos(make_local_groups(1), 0, {.max_delay_seconds = -1}), UsageError);
  EXPECT_THROW(make_chaos(make_local_groups(1), 0, {.fail = ChaosTarget{.rank = 1}}), UsageError);
  EXPECT_THROW(make_chaos({}, 0), UsageError);
  std::vector<std::unique_ptr<Group>> null(1);
  EXPECT_THROW(make_chaos(std::move(null), 0), UsageError);
}

TEST(Options, HooksComeBeforeCollectives) {
  auto groups = make_local_groups(1);
  groups[0]->barrier(0).synchronize();
  EXPECT_THROW(make_chaos(std::move(groups), 0), UsageError);
}

}  // namespace
}  // namespace farskip
