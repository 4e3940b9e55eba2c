#include "farskip/comm/loopback.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "farskip/comm/throttled.h"

namespace farskip {
namespace {

at::Tensor rows_of(int64_t rows, int64_t width) {
  return at::arange(rows * width, at::kFloat).view({rows, width});
}

TEST(Loopback, EveryPeerSendsWhatThisRankSendsToItself) {
  const auto group = make_loopback_group({.ranks = 3, .rank = 1});
  EXPECT_EQ(group->rank(), 1);
  EXPECT_EQ(group->size(), 3);
  const std::vector<int64_t> sent = {4, 2, 1}, received = {2, 2, 2};
  const at::Tensor in = rows_of(7, 5), out = at::empty({6, 5});
  group->all_to_all(out, in, received, sent, 1).synchronize();
  for (int64_t peer = 0; peer < 3; ++peer) {
    EXPECT_TRUE(at::equal(out.narrow(0, 2 * peer, 2), in.narrow(0, 4, 2))) << peer;
  }
  EXPECT_EQ(group->traffic().bytes_sent, 5 * 5 * 4);
  EXPECT_EQ(group->traffic().bytes_received, 4 * 5 * 4);
}

TEST(Loopback, CombineBringsOwnRowsHomeAndFillsTheRest) {
  const auto group = make_loopback_group({.ranks = 3, .rank = 1});
  const std::vector<int64_t> sent = {2, 2, 2}, received = {4, 2, 9};
  const at::Tensor in = rows_of(6, 3), out = at::empty({15, 3});
  group->all_to_all(out, in, received, sent, 1).synchronize();
  EXPECT_TRUE(at::equal(out.narrow(0, 4, 2), in.narrow(0, 2, 2)));
  EXPECT_TRUE(at::equal(out.narrow(0, 0, 4), in.narrow(0, 2, 4)));
  EXPECT_TRUE(at::equal(out.narrow(0, 6, 4), in.narrow(0, 2, 4)));
  EXPECT_TRUE(at::equal(out.narrow(0, 10, 5), in.narrow(0, 0, 5)));
}

TEST(Loopback, TakesNoRowsAndOtherCollectives) {
  const auto group = make_loopback_group({.ranks = 2});
  const std::vector<int64_t> none = {0, 0}, some = {0, 3};
  group->all_to_all(at::empty({0, 4}), rows_of(3, 4), none, some, 1).synchronize();
  const at::Tensor x = rows_of(2, 4), sum = at::empty({2, 4}), all = at::empty({4, 4});
  group->all_reduce(sum, x, 2).synchronize();
  EXPECT_TRUE(at::equal(sum, x + x));
  group->all_gather(all, x, 3).synchronize();
  EXPECT_TRUE(at::equal(all.narrow(0, 2, 2), x));
  group->barrier(4).synchronize();
}

TEST(Loopback, ThePacedPathTakesAsLongAsItsLink) {
  const LinkOptions link{.bytes_per_second = 1e9, .latency_seconds = 1e-3};
  const auto group = make_loopback_group({.ranks = 4, .link = link});
  const std::vector<int64_t> rows(4, 1000);
  const at::Tensor in = rows_of(4000, 1000), out = at::empty({4000, 1000});
  for (Tag tag = 0; tag < 3; ++tag) {
    const Work work = group->all_to_all(out, in, rows, rows, tag);
    work.synchronize();
    const std::chrono::duration<double> took = work.times().finished - work.times().started;
    EXPECT_GE(took.count(), link_seconds(link, 12000000, 12000000) * 0.999);
  }
  const auto report = link_report(*group);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->bytes_in, 3 * 12000000);
  EXPECT_NEAR(report->link_seconds, 3 * 13e-3, 1e-9);
}

TEST(Loopback, AnAbortEndsThePacing) {
  const LinkOptions link{.bytes_per_second = 1e3, .latency_seconds = 0};
  const auto group = make_loopback_group({.ranks = 2, .link = link});
  const std::vector<int64_t> rows = {1000, 1000};
  const Work work = group->all_to_all(at::empty({2000, 100}), rows_of(2000, 100), rows, rows, 1);
  group->abort(CommError("enough"));
  EXPECT_THROW(work.synchronize(), CommError);
  EXPECT_THROW(group->barrier(2), CommError);
}

TEST(Loopback, RefusesWhatItCanNotStandFor) {
  EXPECT_THROW(make_loopback_group({.ranks = 0}), UsageError);
  EXPECT_THROW(make_loopback_group({.ranks = 4, .rank = 4}), UsageError);
  EXPECT_THROW(make_loopback_group({.ranks = 4, .path = LoopbackPath::pcie}), UsageError);
  EXPECT_THROW(make_loopback_group({.ranks = 4, .link = {.bytes_per_second = -1}}), UsageError);
}

}  // namespace
}  // namespace farskip
