#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "farskip/comm/chaos.h"
#include "farskip/comm/local.h"
#include "farskip/comm/ranks.h"
#include "farskip/comm/throttled.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Counts = std::vector<int64_t>;
using Seconds = std::chrono::duration<double>;

std::string error_of(const Work& work) {
  try {
    work.synchronize();
  } catch (const CommError& error) {
    EXPECT_TRUE(work.done());
    EXPECT_NE(work.error(), nullptr);
    return error.what();
  }
  return "";
}

double seconds_since(Clock::time_point begin) { return Seconds(Clock::now() - begin).count(); }

TEST(Failures, TagMismatchNamesRanksAndTags) {
  const auto groups = make_local_groups(2);
  const Work a = groups[0]->barrier(4), b = groups[1]->barrier(5);
  for (const Work& work : {a, b}) {
    EXPECT_THAT(error_of(work), AllOf(HasSubstr("tag 4 on rank 0"), HasSubstr("tag 5 on rank 1")));
  }
  // A failed group stays failed.
  EXPECT_THROW(groups[0]->barrier(6), CommError);
  EXPECT_THROW(groups[1]->barrier(6), CommError);
  EXPECT_EQ(groups[0]->traffic().collectives, 0);
}

TEST(Failures, KindRootDtypeAndShapeMismatch) {
  const auto both = [](const auto& first, const auto& second) {
    const auto groups = make_local_groups(2);
    const Work a = first(*groups[0]), b = second(*groups[1]);
    error_of(b);
    return error_of(a);
  };
  const auto barrier = [](Group& g) { return g.barrier(1); };
  const auto reduce = [](std::vector<int64_t> shape, at::ScalarType dtype) {
    return
        [=](Group& g) { return g.all_reduce(at::zeros(shape, dtype), at::zeros(shape, dtype), 1); };
  };
  const auto broadcast = [](int root) {
    return [=](Group& g) { return g.broadcast(at::zeros({2}), root, 1); };
  };
  EXPECT_THAT(both(barrier, reduce({2}, at::kFloat)), HasSubstr("all_reduce, tag 1 on rank 1"));
  EXPECT_THAT(both(reduce({2, 3}, at::kFloat), reduce({3, 2}, at::kFloat)),
              AllOf(HasSubstr("Float [2, 3] on rank 0"), HasSubstr("Float [3, 2] on rank 1")));
  EXPECT_THAT(both(reduce({2}, at::kFloat), reduce({2}, at::kLong)), HasSubstr("Long [2]"));
  EXPECT_THAT(both(broadcast(0), broadcast(1)), HasSubstr("root 1 on rank 1"));
}

TEST(Failures, RowCountsMismatch) {
  const auto groups = make_local_groups(3);
  std::vector<Work> works;
  for (int rank = 0; rank < 3; ++rank) {
    Counts out_rows = {1, 1, 1};
    if (rank == 2) out_rows = {1, 0, 2};  // rank 1 sends one row and rank 2 one to itself
    works.push_back(groups[static_cast<size_t>(rank)]->all_to_all(
        at::zeros({3, 2}), at::zeros({3, 2}), out_rows, Counts{1, 1, 1}, 8));
  }
  for (const Work& work : works) {
    EXPECT_THAT(error_of(work), AllOf(HasSubstr("out_rows[1] = 0 on rank 2"),
                                      HasSubstr("in_rows[2] = 1 on rank 1")));
  }
}

TEST(Failures, OwnShareMismatch) {
  const auto groups = make_local_groups(1);
  const Work work = groups[0]->all_to_all(at::zeros({2}), at::zeros({3}), Counts{2}, Counts{3}, 8);
  EXPECT_THAT(error_of(work), HasSubstr("row counts disagree"));
}

TEST(Failures, ThrowingRankStopsTheOthersAndItsErrorIsRethrown) {
  for (const int ranks : {2, 4, 8}) {
    const auto groups = make_local_groups(ranks);
    std::atomic<int> failed = 0;
    const auto begin = Clock::now();
    EXPECT_THROW(run_ranks(groups,
                           [&](Group& group) {
                             group.barrier(0).synchronize();
                             if (group.rank() == 1) throw ConfigError("rank 1 does not like it");
                             try {
                               group.barrier(1).synchronize();
                             } catch (const CommError& error) {
                               EXPECT_THAT(error.what(), HasSubstr("rank 1 does not like it"));
                               ++failed;
                               throw;
                             }
                           }),
                 ConfigError);
    EXPECT_EQ(failed, ranks - 1);
    EXPECT_LT(seconds_since(begin), 30);  // not the deadline of 60
  }
}

TEST(Failures, UnknownExceptionsAreRethrownToo) {
  EXPECT_THROW(run_ranks(make_local_groups(2), [](Group&) { throw 7; }), int);
  EXPECT_THROW(run_ranks({}, [](Group&) {}), UsageError);
}

TEST(Failures, StallingRankRunsTheOthersIntoTheDeadline) {
  constexpr double kDeadline = 0.3;
  const auto groups = make_local_groups(4, {.deadline = Seconds(kDeadline)});
  std::vector<std::string> errors(4);
  const auto begin = Clock::now();
  run_ranks(groups, [&](Group& group) {
    if (group.rank() == 2) return;
    errors[static_cast<size_t>(group.rank())] = error_of(group.barrier(17));
  });
  EXPECT_GE(seconds_since(begin), kDeadline);
  EXPECT_LT(seconds_since(begin), 2 * kDeadline + 1);  // a slow machine's second
  for (const size_t rank : {0, 1, 3}) {
    EXPECT_THAT(errors[rank],
                AllOf(HasSubstr("barrier, tag 17, rank " + std::to_string(rank)),
                      HasSubstr("rank 2 not entered after 0."), HasSubstr("the deadline passed")));
  }
  EXPECT_THROW(groups[2]->barrier(17), CommError);
}

TEST(Failures, StallFromChaosFailsOnEveryRank) {
  const auto groups = make_chaos(make_local_groups(3, {.deadline = Seconds(0.3)}), 1,
                                 {.stall = ChaosTarget{.rank = 1, .collective = 1}});
  std::atomic<int> failed = 0;
  EXPECT_THROW(run_ranks(groups,
                         [&](Group& group) {
                           group.barrier(0).synchronize();
                           const Work work = group.barrier(1);
                           EXPECT_THAT(error_of(work), HasSubstr("rank 1 not entered"));
                           ++failed;
                           work.synchronize();
                         }),
               CommError);
  EXPECT_EQ(failed, 3);
}

TEST(Failures, InjectedFailureReachesEveryRank) {
  const auto groups =
      make_chaos(make_local_groups(3), 1, {.fail = ChaosTarget{.rank = 2, .collective = 5}});
  run_ranks(groups, [&](Group& group) {
    std::vector<Work> works;
    try {
      for (int i = 0; i < 10; ++i) works.push_back(group.barrier(i));
    } catch (const CommError&) {
      EXPECT_GE(works.size(), 5u);
    }
    for (size_t i = 0; i < 5; ++i) EXPECT_NO_THROW(works[i].synchronize());
    for (size_t i = 5; i < works.size(); ++i) {
      EXPECT_THAT(error_of(works[i]), HasSubstr("injected failure"));
    }
  });
}

TEST(Failures, AbortFromAnotherThreadFailsPendingAndLaterWorks) {
  const auto groups = make_local_groups(3);
  const Work first = groups[0]->barrier(0), second = groups[0]->barrier(1);
  std::thread aborter([&] { groups[1]->abort(CommError("enough")); });
  EXPECT_THAT(error_of(first), HasSubstr("enough"));
  EXPECT_THAT(error_of(second), HasSubstr("enough"));
  aborter.join();
  groups[2]->abort(CommError("again"));  // the first reason stays
  EXPECT_THAT(error_of(first), HasSubstr("enough"));
  EXPECT_THROW(groups[2]->barrier(0), CommError);
}

TEST(Failures, AbortEndsAWaitForTheLink) {
  const auto groups = make_throttled(make_local_groups(2), {1e9, 100});
  const auto begin = Clock::now();
  const Work a = groups[0]->barrier(0), b = groups[1]->barrier(0);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(a.done());
  groups[0]->abort(CommError("enough"));
  EXPECT_THAT(error_of(a), HasSubstr("enough"));
  EXPECT_THAT(error_of(b), HasSubstr("enough"));
  EXPECT_LT(seconds_since(begin), 50);
}

TEST(Failures, SynchronizeGivesUpOnASlowLink) {
  const auto groups = make_throttled(make_local_groups(2, {.deadline = Seconds(0.1)}), {1e9, 100});
  const Work a = groups[0]->barrier(0), b = groups[1]->barrier(0);
  EXPECT_THAT(error_of(a), HasSubstr("the deadline passed"));
  EXPECT_THAT(error_of(b), HasSubstr("the deadline passed"));
}

TEST(Failures, DestroyedWhileAnotherWaits) {
  auto groups = make_local_groups(3);
  const Work waiting = groups[0]->barrier(0);
  groups[2].reset();
  EXPECT_THAT(error_of(waiting), ::testing::Not(""));
  EXPECT_THROW(groups[1]->barrier(0), CommError);
}

TEST(Failures, DestroyedBeforeTheOthersEnter) {
  auto groups = make_local_groups(2);
  groups[1].reset();
  // Posted while the group was well: fails on entering.
  EXPECT_THAT(error_of(groups[0]->barrier(0)), HasSubstr("group of rank 1 was destroyed"));
}

TEST(Failures, DestroyedWithPendingCollectives) {
  Work first, second;
  {
    auto groups = make_local_groups(2);
    first = groups[0]->broadcast(at::zeros({4}), 0, 0);
    second = groups[0]->barrier(1);
  }
  EXPECT_TRUE(first.done());
  EXPECT_THROW(first.synchronize(), CommError);
  EXPECT_THROW(second.times(), CommError);
}

TEST(Failures, FinishedRanksMayLeaveWhileOthersGoOn) {
  for (int round = 0; round < 50; ++round) {
    auto groups = make_local_groups(3);
    std::vector<std::jthread> threads;
    for (auto& group : groups) {
      threads.emplace_back([&group] {
        group->barrier(0).synchronize();
        const Work last = group->barrier(1);
        last.synchronize();
        group.reset();
        EXPECT_NO_THROW(last.synchronize());
      });
    }
  }
}

// Aborts at a random moment of traffic: whatever a Work says, nothing hangs, and tensors of a Work
// that is done, even by failure, may be freed (address and thread sanitizers check that).
TEST(Failures, AbortAtAnyMoment) {
  for (int round = 0; round < 30; ++round) {
    const auto groups = make_local_groups(3);
    std::jthread aborter([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(50 * round));
      groups[0]->abort(CommError("enough"));
    });
    run_ranks(groups, [](Group& group) {
      for (Tag tag = 0; tag < 1000; ++tag) {
        std::vector<float> memory(2 * 3 * 500);
        const at::Tensor in = at::from_blob(memory.data(), {1500});
        const at::Tensor out = at::from_blob(memory.data() + 1500, {1500});
        try {
          const Counts rows(3, 500);
          const Work work = group.all_to_all(out, in, rows, rows, tag);
          while (!work.done()) std::this_thread::yield();
          if (work.error()) return;
        } catch (const CommError&) {
          return;
        }
      }
    });
  }
}

}  // namespace
}  // namespace farskip
