#include "farskip/comm/loopback.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "farskip/comm/loopback_copies.h"

namespace farskip {
namespace {

at::Tensor numbered(int64_t rows, int64_t width) {
  return at::arange(rows * width, at::kFloat).view({rows, width});
}

TEST(Loopback, EveryPeerSendsWhatThisRankSendsToItself) {
  const auto group = make_loopback_group({.ranks = 3, .rank = 1});
  EXPECT_EQ(group->rank(), 1);
  EXPECT_EQ(group->size(), 3);
  const std::vector<int64_t> sent = {4, 2, 1}, received = {2, 2, 2};
  const at::Tensor in = numbered(7, 5), out = at::empty({6, 5});
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
  const at::Tensor in = numbered(6, 3), out = at::empty({15, 3});
  group->all_to_all(out, in, received, sent, 1).synchronize();
  EXPECT_TRUE(at::equal(out.narrow(0, 4, 2), in.narrow(0, 2, 2)));
  EXPECT_TRUE(at::equal(out.narrow(0, 0, 4), in.narrow(0, 2, 4)));
  EXPECT_TRUE(at::equal(out.narrow(0, 6, 4), in.narrow(0, 2, 4)));
  EXPECT_TRUE(at::equal(out.narrow(0, 10, 5), in.narrow(0, 0, 5)));
}

TEST(Loopback, TakesNoRowsAndOtherCollectives) {
  const auto group = make_loopback_group({.ranks = 2});
  const std::vector<int64_t> none = {0, 0}, some = {0, 3};
  group->all_to_all(at::empty({0, 4}), numbered(3, 4), none, some, 1).synchronize();
  const at::Tensor x = numbered(2, 4), sum = at::empty({2, 4}), all = at::empty({4, 4});
  group->all_reduce(sum, x, 2).synchronize();
  EXPECT_TRUE(at::equal(sum, x + x));
  group->all_gather(all, x, 3).synchronize();
  EXPECT_TRUE(at::equal(all.narrow(0, 2, 2), x));
  group->barrier(4).synchronize();
}

TEST(Loopback, CutsWhatArrivesWithoutLosingARow) {
  const std::vector<int64_t> sent = {4, 2, 1}, received = {5, 2, 9};
  const Collective part{.kind = CollectiveKind::all_to_all,
                        .rank = 1,
                        .size = 3,
                        .out = at::empty({16, 5}),
                        .in = numbered(7, 5),
                        .out_rows = received,
                        .in_rows = sent};
  const LoopbackCopies copies = loopback_copies(part);
  EXPECT_EQ(rows_of(copies.own), 2);
  EXPECT_EQ(rows_of(copies.arriving), 14);
  for (const int64_t about : {1, 2, 3, 100}) {
    std::vector<int> hits(16, 0);
    const CopyParts cut = cut_copies(copies.arriving, about);
    EXPECT_EQ(about == 100, cut.parts.size() == 1);
    for (const auto& part : cut.parts) {
      EXPECT_LT(rows_of(part), 2 * about + 1);
      for (const RowCopy& copy : part) {
        EXPECT_LE(2 * copy.rows, 3 * about);
        EXPECT_LE(copy.from + copy.rows, 7);
        for (int64_t row = copy.to; row < copy.to + copy.rows; ++row) ++hits[row];
      }
    }
    for (int64_t row = 0; row < 16; ++row) EXPECT_EQ(hits[row], row < 5 || row >= 7) << row;
  }
}

TEST(Loopback, AnAbortedGroupStaysFailed) {
  const auto group = make_loopback_group({.ranks = 2});
  const Work before = group->barrier(1);
  before.synchronize();
  group->abort(CommError("enough"));
  EXPECT_NO_THROW(before.synchronize());
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
