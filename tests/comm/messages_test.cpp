#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "farskip/comm/chaos.h"
#include "farskip/comm/local.h"
#include "farskip/comm/ranks.h"
#include "farskip/comm/throttled.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Groups = std::vector<std::unique_ptr<Group>>;

Groups short_groups(int ranks) {
  return make_local_groups(ranks, {.deadline = std::chrono::duration<double>(0.2)});
}

std::string error_of(const Work& work) {
  try {
    work.synchronize();
  } catch (const CommError& error) {
    return error.what();
  }
  return "";
}

TEST(Messages, ArriveInTheOrderInWhichTheyAreSent) {
  const Groups groups = make_local_groups(3);
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kLong}) {
    std::vector<at::Tensor> received;
    std::vector<Work> works;
    for (int i = 0; i < 5; ++i) {
      groups[0]->send(at::full({i, 2}, i, dtype), 2, 10 + i).synchronize();
    }
    for (int i = 0; i < 5; ++i) {
      received.push_back(at::full({i, 2}, -1, dtype));
      works.push_back(groups[2]->receive(received.back(), 0, 10 + i));
    }
    for (int i = 0; i < 5; ++i) {
      works[i].synchronize();
      EXPECT_TRUE(at::equal(received[i], at::full({i, 2}, i, dtype)));
    }
  }
}

TEST(Messages, ASendWaitsForNoReceiver) {
  const Groups groups = make_local_groups(2);
  at::Tensor ones = at::full({4}, 1), twos = at::full({4}, 2), a = at::zeros({4}, at::kLong),
             b = at::zeros({4}, at::kLong);
  groups[0]->send(ones, 1, 1).synchronize();
  groups[1]->send(twos, 0, 2).synchronize();
  ones.zero_();  // sent is sent
  groups[0]->receive(a, 1, 2).synchronize();
  groups[1]->receive(b, 0, 1).synchronize();
  EXPECT_TRUE(at::equal(a, at::full({4}, 2)));
  EXPECT_TRUE(at::equal(b, at::full({4}, 1)));
}

TEST(Messages, StandBesideCollectives) {
  const Groups groups = make_local_groups(3);
  run_ranks(groups, [](Group& group) {
    const int rank = group.rank();
    for (int i = 0; i < 20; ++i) {
      at::Tensor sum = at::full({8}, rank), got = at::zeros({8}, at::kLong);
      const Work first = group.all_reduce(sum, sum, 100 + i);
      if (rank < 2) group.send(at::full({8}, 10 * rank + i), rank + 1, i);
      Work received;
      if (rank > 0) received = group.receive(got, rank - 1, i);
      at::Tensor other = at::full({8}, 1);
      group.all_reduce(other, other, 200 + i).synchronize();
      first.synchronize();
      EXPECT_TRUE(at::equal(sum, at::full({8}, 3)));
      if (rank == 0) continue;
      received.synchronize();
      EXPECT_TRUE(at::equal(got, at::full({8}, 10 * (rank - 1) + i)));
    }
  });
}

TEST(Messages, CountAsTraffic) {
  const Groups groups = make_local_groups(2);
  groups[0]->send(at::zeros({6}, at::kFloat), 1, 1).synchronize();
  groups[1]->receive(at::zeros({6}, at::kFloat), 0, 1).synchronize();
  EXPECT_EQ(groups[0]->traffic().bytes_sent, 24);
  EXPECT_EQ(groups[0]->traffic().bytes_received, 0);
  EXPECT_EQ(groups[1]->traffic().bytes_received, 24);
}

TEST(Messages, TakeTheTimeOfTheirLink) {
  const Groups groups =
      make_throttled(make_local_groups(2), {.bytes_per_second = 1e6, .latency_seconds = 0});
  const at::Tensor sent = at::zeros({25000}, at::kFloat), received = at::zeros({25000}, at::kFloat);
  groups[0]->send(sent, 1, 1);
  const Work work = groups[1]->receive(received, 0, 1);
  work.synchronize();
  const std::chrono::duration<double> took = work.times().finished - work.times().started;
  EXPECT_GT(took.count(), 0.09);
}

TEST(MessageFailures, EndsThatDisagree) {
  auto both = [](const at::Tensor& sent, Tag tag, const at::Tensor& received) {
    const Groups groups = make_local_groups(2);
    groups[0]->send(sent, 1, tag).synchronize();
    const std::string text = error_of(groups[1]->receive(received, 0, 7));
    EXPECT_THROW(groups[0]->barrier(1), CommError);  // a failed group stays failed
    return text;
  };
  EXPECT_THAT(both(at::zeros({2}), 8, at::zeros({2})),
              AllOf(HasSubstr("tag 8 on rank 0"), HasSubstr("tag 7 on rank 1")));
  EXPECT_THAT(both(at::zeros({2, 3}), 7, at::zeros({3, 2})),
              AllOf(HasSubstr("[2, 3] on rank 0"), HasSubstr("[3, 2] on rank 1")));
  EXPECT_THAT(both(at::zeros({2}), 7, at::zeros({2}, at::kLong)), HasSubstr("Long [2] on rank 1"));
}

TEST(MessageFailures, ASenderThatStaysAway) {
  const Groups groups = short_groups(2);
  EXPECT_THAT(error_of(groups[1]->receive(at::zeros({2}), 0, 7)),
              AllOf(HasSubstr("deadline"), HasSubstr("receive, tag 7, rank 1"),
                    HasSubstr("rank 0 has sent nothing")));
}

TEST(MessageFailures, ASenderThatIsGone) {
  Groups groups = make_local_groups(2);
  const Work work = groups[1]->receive(at::zeros({2}), 0, 7);
  groups[0].reset();
  EXPECT_THAT(error_of(work), HasSubstr("the group of rank 0 was destroyed"));
}

TEST(MessageFailures, AnAbortEndsAReceive) {
  const Groups groups = make_local_groups(2);
  const Work work = groups[1]->receive(at::zeros({2}), 0, 7);
  groups[0]->abort(CommError("enough"));
  EXPECT_THAT(error_of(work), HasSubstr("enough"));
}

TEST(MessageFailures, AStalledSenderIsNoticedWithinTheDeadline) {
  const Groups groups =
      make_chaos(short_groups(2), 1, {.stall = ChaosTarget{.rank = 0, .collective = 0}});
  groups[0]->send(at::zeros({2}), 1, 7);
  const auto begin = Clock::now();
  EXPECT_THAT(error_of(groups[1]->receive(at::zeros({2}), 0, 7)), HasSubstr("rank 0 has sent"));
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(5));
}

TEST(MessageFailures, NoSuchRank) {
  const Groups groups = make_local_groups(2);
  EXPECT_THROW(groups[0]->send(at::zeros({2}), 2, 1), CommError);
  EXPECT_THROW(groups[0]->send(at::zeros({2}), 0, 1), CommError);
  EXPECT_THROW(groups[0]->receive(at::zeros({2}), -1, 1), CommError);
  EXPECT_THROW(groups[0]->send(at::zeros({2, 2}).t(), 1, 1), CommError);
}

}  // namespace
}  // namespace farskip
