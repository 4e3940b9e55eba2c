// The processes of an MPI job: GoogleTest cases that every process runs, chosen by --gtest_filter.
// mpi_test.cpp starts them and knows how each must end.
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <iostream>
#include <thread>

#include "comm/script.h"
#include "farskip/comm/agreement.h"
#include "farskip/comm/chaos.h"
#include "farskip/comm/mpi.h"
#include "farskip/comm/ranks.h"
#include "farskip/comm/throttled.h"

namespace farskip {
namespace {

using namespace testing;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using Counts = std::vector<int64_t>;
using Seconds = std::chrono::duration<double>;
using Groups = std::vector<std::unique_ptr<Group>>;

// The process's part in the job; set by main for as long as tests run.
MpiProcess* process = nullptr;

Groups make_groups(MpiOptions options = {}) {
  if (options.deadline == MpiOptions{}.deadline) options.deadline = Seconds(20);
  Groups groups;
  groups.push_back(make_mpi_group(*process, options));
  return groups;
}

std::string error_of(const std::function<void()>& function) {
  try {
    function();
  } catch (const CommError& error) {
    return error.what();
  }
  return "";
}

double seconds_of(const std::function<void()>& function) {
  const auto begin = Clock::now();
  function();
  return Seconds(Clock::now() - begin).count();
}

TEST(Works, EveryScript) {
  const int ranks = process->size();
  run_and_check(make_groups(), all_to_all_script(ranks));
  run_and_check(make_groups(), other_kinds_script(ranks));
  run_and_check(make_groups(), mixed_script(ranks, 200));
  run_and_check(make_groups(), in_place_script(ranks));
}

TEST(Works, LongTensorsGoInSeveralMessages) {
  run_and_check(make_groups({.longest_message = 1000}), mixed_script(process->size(), 100));
  run_and_check(make_groups({.longest_message = 7}), in_place_script(process->size()));
}

TEST(Works, UnderChaosAndOverALink) {
  const LinkOptions link{1e9, 100e-6};
  const auto steps = mixed_script(process->size(), 60);
  const auto groups =
      make_chaos(make_throttled(make_groups(), link), 1, {.max_delay_seconds = 5e-4});
  EXPECT_EQ(groups[0]->describe(),
            "chaos(seed 1, delays up to 500.00 us) over throttled(1.00 GB/s, 100.00 us) over mpi");
  run_and_check(groups, steps);
  EXPECT_EQ(link_report(*groups[0])->collectives, 60);
}

TEST(Works, TwoGroupsAtATimeAndTraffic) {
  const Groups first = make_groups(), second = make_groups();
  Random random(5);
  const int ranks = process->size();
  const Matrix rows = variable_rows(ranks);
  const Step step = all_to_all_step(rows, {4}, at::kFloat, random);
  run_and_check(second, {step});
  run_and_check(first, {step, step});
  int64_t sent = 0;
  const auto own = static_cast<size_t>(process->rank());
  for (size_t peer = 0; peer < rows.size(); ++peer) sent += peer == own ? 0 : rows[own][peer] * 16;
  EXPECT_EQ(second[0]->traffic().bytes_sent, sent);
  EXPECT_EQ(first[0]->traffic().collectives, 2);
}

TEST(Works, ACollectiveStartsWhenItsLastRankEnters) {
  const Groups groups = make_groups();
  groups[0]->barrier(0).synchronize();
  const auto begin = Clock::now();
  if (process->rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const Work work = groups[0]->barrier(1);
  work.synchronize();
  EXPECT_GE(Seconds(work.times().started - begin).count(), 0.15);
  EXPECT_LT(Seconds(work.times().finished - work.times().started).count(), 0.15);
}

TEST(Works, RanksThatAreDoneMayLeave) {
  for (int round = 0; round < 5; ++round) {
    Groups groups = make_groups();
    const Work work = groups[0]->broadcast(at::zeros({1 << 18}), 0, 0);
    work.synchronize();
    groups.clear();
    EXPECT_NO_THROW(work.synchronize());
  }
}

TEST(Works, AgreementNamesFieldRanksAndValues) {
  const Groups groups = make_groups();
  require_agreement(*groups[0], 1, "colour", "blue");
  require_agreement(*groups[0], 2, "nothing", "");
  const bool last = process->rank() == process->size() - 1;
  EXPECT_THAT(
      error_of([&] { require_agreement(*groups[0], 3, "colour", last ? "green" : "blue"); }),
      AllOf(HasSubstr("colour"), HasSubstr("'blue' on rank 0"),
            HasSubstr("'green' on rank " + std::to_string(process->size() - 1))));
}

TEST(Works, PeersOfAnotherVersionOrOptionsAreRefused) {
  const std::string own = process->rank() == 1 ? "0.0.7" : "0.1.0";
  EXPECT_THAT(error_of([&] { make_groups({.version = own}); }),
              AllOf(HasSubstr("farskip version"), HasSubstr("'0.0.7' on rank 1")));
  EXPECT_THAT(error_of([&] { make_groups({.longest_message = 100 + process->rank()}); }),
              AllOf(HasSubstr("longest message"), HasSubstr("'101' on rank 1")));
  EXPECT_THROW(make_groups({.longest_message = 0}), UsageError);
  EXPECT_THROW(MpiProcess(Seconds(1)), UsageError);
}

// A ring of messages, each way, beside collectives.
void pass_messages(Group& group, int64_t elements) {
  const int size = group.size(), next = (group.rank() + 1) % size,
            last = (group.rank() + size - 1) % size;
  for (int i = 0; i < 10; ++i) {
    const at::Tensor own = at::full({elements}, 100 * group.rank() + i, at::kFloat);
    const at::Tensor up = at::zeros({elements}), down = at::zeros({elements}), sum = own.clone();
    group.send(own, next, i).synchronize();
    group.send(own, last, 50 + i).synchronize();
    const Work reduced = group.all_reduce(sum, sum, 100 + i);
    group.receive(up, last, i).synchronize();
    group.receive(down, next, 50 + i).synchronize();
    reduced.synchronize();
    EXPECT_TRUE(up.eq(100 * last + i).all().item<bool>());
    EXPECT_TRUE(down.eq(100 * next + i).all().item<bool>());
  }
}

TEST(Works, MessagesBetweenTwoRanks) {
  for (int64_t longest : {int64_t{1} << 20, int64_t{1000}}) {
    const Groups groups = make_groups({.longest_message = longest});
    for (int64_t elements : {0, 1, 5000, 200000}) {
      if (elements * 4 / longest < 100) pass_messages(*groups[0], elements);
    }
    EXPECT_GT(groups[0]->traffic().bytes_sent, 0);
  }
}

TEST(Works, GroupsOfAPartOfTheJob) {
  const Groups halves = make_groups({.part = process->rank() % 2}),
               others = make_groups({.part = process->rank() / 2});
  const int size = process->size();
  EXPECT_EQ(halves[0]->size(), size / 2);
  EXPECT_EQ(halves[0]->rank(), process->rank() / 2);
  EXPECT_EQ(others[0]->size(), 2);
  const at::Tensor sum = at::full({4}, process->rank(), at::kFloat);
  halves[0]->all_reduce(sum, sum, 1).synchronize();
  int64_t expected = 0;
  for (int rank = process->rank() % 2; rank < size; rank += 2) expected += rank;
  EXPECT_TRUE(sum.eq(expected).all().item<bool>());
  pass_messages(*others[0], 100);
}

// One rank posts something else; every rank is told the same.
void expect_disagreement(const std::function<Work(Group&, bool odd)>& post,
                         const std::vector<std::string>& parts) {
  const Groups groups = make_groups();
  const std::string error = error_of([&] { post(*groups[0], process->rank() == 1).synchronize(); });
  for (const std::string& part : parts) EXPECT_THAT(error, HasSubstr(part));
  EXPECT_THROW(groups[0]->barrier(6), CommError);
  EXPECT_EQ(groups[0]->traffic().collectives, 0);
}

TEST(Fails, WhereRanksDisagree) {
  expect_disagreement([](Group& g, bool odd) { return g.barrier(odd ? 5 : 4); },
                      {"tag 4 on rank 0", "tag 5 on rank 1"});
  expect_disagreement(
      [](Group& g, bool odd) {
        return odd ? g.all_reduce(at::zeros({2}), at::zeros({2}), 1) : g.barrier(1);
      },
      {"all_reduce, tag 1 on rank 1"});
  expect_disagreement(
      [](Group& g, bool odd) { return g.broadcast(at::zeros({2}), odd ? 1 : 0, 1); },
      {"root 1 on rank 1"});
  expect_disagreement(
      [](Group& g, bool odd) {
        const Counts shape = odd ? Counts{3, 2} : Counts{2, 3};
        return g.all_reduce(at::zeros(shape), at::zeros(shape), 1);
      },
      {"Float [2, 3] on rank 0", "Float [3, 2] on rank 1"});
  expect_disagreement(
      [](Group& g, bool odd) {
        const auto dtype = odd ? at::kLong : at::kFloat;
        return g.all_reduce(at::zeros({2}, dtype), at::zeros({2}, dtype), 1);
      },
      {"Long [2]"});
  expect_disagreement(
      [](Group& g, bool odd) {
        Counts out(static_cast<size_t>(g.size()), 1), in = out;
        if (odd) out[0] = 2, out[1] = 0;  // though it sends one row to itself
        return g.all_to_all(at::zeros({g.size(), 2}), at::zeros({g.size(), 2}), out, in, 8);
      },
      {"row counts disagree", "on rank 1"});
}

TEST(Fails, WhereTheEndsOfAMessageDisagree) {
  const Groups groups = make_groups();
  const int rank = process->rank();
  const std::string error = error_of([&] {
    if (rank == 0) groups[0]->send(at::zeros({2, 3}), 1, 7).synchronize();
    if (rank == 1) groups[0]->receive(at::zeros({3, 2}), 0, 7).synchronize();
    groups[0]->barrier(1).synchronize();
  });
  EXPECT_THAT(error, AllOf(HasSubstr("[2, 3] on rank 0"), HasSubstr("[3, 2] on rank 1")));
}

TEST(Fails, ASenderThatStaysAwayRunsTheReceiverIntoTheDeadline) {
  const Groups groups = make_groups({.deadline = Seconds(0.5)});
  groups[0]->barrier(0).synchronize();
  if (process->rank() != 1) std::this_thread::sleep_for(Seconds(1));
  const std::string error = error_of([&] {
    if (process->rank() == 1) groups[0]->receive(at::zeros({2}), 0, 7).synchronize();
    groups[0]->barrier(1).synchronize();
  });
  EXPECT_THAT(error, AllOf(HasSubstr("the deadline passed"), HasSubstr("rank 0 has sent nothing"),
                           HasSubstr("receive, tag 7")));
}

TEST(Fails, ThrowingRankStopsTheOthersAtOnce) {
  const Groups groups = make_groups();
  const double took = seconds_of([&] {
    const auto work = [](Group& group) {
      group.barrier(0).synchronize();
      if (group.rank() == 1) throw ConfigError("rank 1 does not like it");
      group.barrier(1).synchronize();
    };
    if (process->rank() == 1) {
      EXPECT_THROW(run_ranks(groups, work), ConfigError);
    } else {
      EXPECT_THAT(error_of([&] { run_ranks(groups, work); }), HasSubstr("rank 1 does not like it"));
    }
  });
  EXPECT_LT(took, 5);  // not the deadline of 20
}

TEST(Fails, AbortReachesARankThatPostsNothing) {
  const Groups groups = make_groups();
  groups[0]->barrier(0).synchronize();
  if (process->rank() == 1) groups[0]->abort(CommError("enough"));
  if (process->rank() != 0) return;
  std::string error;
  const auto begin = Clock::now();
  while (error.empty() && Clock::now() - begin < Seconds(5)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    error = error_of([&] { groups[0]->barrier(1); });
  }
  EXPECT_THAT(error, HasSubstr("enough"));
}

TEST(Fails, DestroyedWithPendingCollectivesOrWhileOthersWait) {
  Groups groups = make_groups();
  if (process->rank() == 1) return;
  const Work work = groups[0]->barrier(3);
  EXPECT_THAT(error_of([&] { work.synchronize(); }),
              HasSubstr("the group of rank 1 was destroyed"));
}

TEST(Fails, StallingRankRunsTheOthersIntoTheDeadline) {
  const Groups groups =
      make_chaos(make_groups({.deadline = Seconds(0.5)}), 1,
                 {.max_delay_seconds = 0, .stall = ChaosTarget{.rank = 0, .collective = 1}});
  groups[0]->barrier(0).synchronize();
  const Work work = groups[0]->barrier(1);
  const double took = seconds_of([&] {
    EXPECT_THAT(error_of([&] { work.synchronize(); }),
                AllOf(HasSubstr("rank 0 not entered after 0."), HasSubstr("the deadline passed"),
                      HasSubstr("barrier, tag 1")));
  });
  EXPECT_GE(took, 0.4);
  EXPECT_LT(took, 3);
}

// These end with an error that leaves the test, as one leaves a program.

TEST(Ends, KilledRank) {
  const Groups groups = make_groups();
  groups[0]->barrier(0).synchronize();
  if (process->rank() == 1) kill(getpid(), SIGKILL);
  groups[0]->barrier(1).synchronize();
}

TEST(Ends, StoppedRank) {
  const Groups groups = make_groups({.deadline = Seconds(1)});
  groups[0]->barrier(0).synchronize();
  if (process->rank() == 1) kill(getpid(), SIGSTOP);
  EXPECT_THAT(error_of([&] { groups[0]->barrier(1).synchronize(); }),
              HasSubstr("rank 1 not entered after 1."));
}

TEST(Ends, SenderThatStopped) {
  const Groups groups = make_groups({.deadline = Seconds(1)});
  groups[0]->barrier(0).synchronize();
  if (process->rank() == 1) kill(getpid(), SIGSTOP);
  EXPECT_THAT(error_of([&] { groups[0]->receive(at::zeros({4}), 1, 5).synchronize(); }),
              HasSubstr("rank 1 has sent nothing after 1."));
}

TEST(Ends, RankStoppedInTheMiddleOfATransfer) {
  const Groups groups = make_groups({.deadline = Seconds(1), .longest_message = 4096});
  groups[0]->barrier(0).synchronize();
  const int64_t rows = 1 << 20;
  const at::Tensor in = at::zeros({rows * process->size()}), out = at::zeros({in.numel()});
  const Counts counts(static_cast<size_t>(process->size()), rows);
  const Work work = groups[0]->all_to_all(out, in, counts, counts, 1);
  if (process->rank() == 1) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    kill(getpid(), SIGSTOP);
  }
  EXPECT_THAT(error_of([&] { work.synchronize(); }),
              AllOf(HasSubstr("the deadline passed"), ContainsRegex("rank ([02], )?1")));
}

TEST(Ends, RankThatMakesNoGroup) {
  if (process->rank() == 1) throw ConfigError("rank 1 has no use for a group");
  EXPECT_THAT(error_of([] { make_groups({.deadline = Seconds(1)}); }),
              HasSubstr("rank 1 not entered"));
}

}  // namespace
}  // namespace farskip

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  farskip::MpiProcess process(std::chrono::duration<double>(10));
  farskip::process = &process;
  const int result = RUN_ALL_TESTS();
  farskip::process = nullptr;
  std::cout << "rank " << process.rank()
            << (result == 0 ? ": as expected\n" : ": NOT as expected\n") << std::flush;
  return result;
}
