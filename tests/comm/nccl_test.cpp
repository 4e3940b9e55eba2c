// The nccl group over a stand-in for NCCL, its device and its network.
#include "farskip/comm/nccl.h"

#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fake_nccl.h"
#include "farskip/base/error.h"
#include "farskip/comm/collective.h"
#include "farskip/comm/deadline.h"
#include "farskip/comm/part_bootstrap.h"
#include "farskip/comm/two_way.h"
#include "jobs.h"
#include "script.h"

namespace farskip {
namespace {

using namespace farskip::testing;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using Seconds = std::chrono::duration<double>;

class NcclRanks : public ::testing::TestWithParam<std::tuple<int, bool>> {
 protected:
  int size() const { return std::get<0>(GetParam()); }
  NcclJob job() const {
    NcclJob job =
        make_nccl_job(size(), {.deadline = Seconds(20), .ordered = std::get<1>(GetParam())});
    EXPECT_THAT(job.errors, Each(IsEmpty()));
    return job;
  }
};

TEST_P(NcclRanks, AllToAllOfEveryPatternAndDtype) {
  run_and_check(job().groups, all_to_all_script(size()));
}

TEST_P(NcclRanks, EveryOtherKindDtypeAndSize) {
  run_and_check(job().groups, other_kinds_script(size()));
}

TEST_P(NcclRanks, MixedBackToBackAndInPlace) {
  const NcclJob nccl = job();
  run_and_check(nccl.groups, mixed_script(size(), 60));
  run_and_check(nccl.groups, in_place_script(size()));
  EXPECT_GT(nccl.groups[0]->traffic().collectives, 60);
  EXPECT_EQ(nccl.apis[0]->calls("comm_abort"), 0);
}

INSTANTIATE_TEST_SUITE_P(Ranks, NcclRanks,
                         ::testing::Combine(::testing::Values(1, 2, 3, 4), ::testing::Bool()));

TEST(Nccl, SaysWhatItIsAndCountsBytes) {
  NcclJob job = make_nccl_job(2, {.ordered = true});
  EXPECT_EQ(job.groups[0]->describe(), "nccl 2.28.9, ordered sums");
  EXPECT_EQ(job.groups[1]->rank(), 1);
  EXPECT_EQ(job.groups[1]->size(), 2);
  EXPECT_EQ(job.groups[0]->traffic().collectives, 0);  // the warm-up does not count
  Random random(1);
  run_and_check(job.groups, {all_to_all_step({{1, 2}, {3, 4}}, {4}, at::kFloat, random)});
  EXPECT_EQ(job.groups[0]->traffic().bytes_sent, 32);
  EXPECT_EQ(job.groups[0]->traffic().bytes_received, 48);
  EXPECT_EQ(job.groups[0]->traffic().collectives, 1);
  const auto apis = job.apis;
  job = {};
  for (const auto& api : apis) {
    EXPECT_EQ(api->calls("comm_finalize"), 1);
    EXPECT_EQ(api->calls("comm_destroy"), 1);
    EXPECT_EQ(api->calls("comm_abort"), 0);
  }
}

// A rank's groups for collectives and for messages each way, each over a network of its own.
struct TwoWayJob {
  explicit TwoWayJob(int size, Seconds deadline = Seconds(20)) {
    for (NcclJob* way : {&collectives, &up, &down})
      *way = make_nccl_job(size, {.deadline = deadline});
    for (size_t rank = 0; rank < collectives.groups.size(); ++rank) {
      groups.push_back(make_two_way(std::move(collectives.groups[rank]), std::move(up.groups[rank]),
                                    std::move(down.groups[rank])));
    }
  }
  NcclJob collectives, up, down;
  std::vector<std::unique_ptr<Group>> groups;
};

TEST(NcclMessages, GoBothWaysBesideCollectives) {
  const int size = 3;
  const TwoWayJob job(size);
  std::vector<at::Tensor> from_below(size), from_above(size);
  std::vector<Work> works;
  for (int rank = 0; rank < size; ++rank) {
    Group& group = *job.groups[rank];
    const at::Tensor own = at::full({5, 2}, rank, at::kFloat);
    if (rank + 1 < size) works.push_back(group.send(own, rank + 1, 1));
    if (rank > 0) works.push_back(group.send(own, rank - 1, 2));
  }
  for (int rank = 0; rank < size; ++rank) {
    Group& group = *job.groups[rank];
    from_below[rank] = at::zeros({5, 2});
    from_above[rank] = at::zeros({5, 2});
    if (rank > 0) works.push_back(group.receive(from_below[rank], rank - 1, 1));
    if (rank + 1 < size) works.push_back(group.receive(from_above[rank], rank + 1, 2));
    works.push_back(group.send(at::zeros({0, 3}), (rank + 1) % size, 3));  // nothing to move
  }
  for (const Work& work : works) work.synchronize();
  EXPECT_EQ(job.groups[0]->traffic().bytes_sent, 40);
  EXPECT_EQ(job.groups[1]->traffic().bytes_sent, 80);
  EXPECT_EQ(job.groups[2]->traffic().bytes_received, 40);
  run_and_check(job.groups, mixed_script(size, 10));
  for (int rank = 0; rank < size; ++rank) {
    if (rank > 0) {
      EXPECT_TRUE(from_below[rank].eq(rank - 1).all().item<bool>());
    }
    if (rank + 1 < size) {
      EXPECT_TRUE(from_above[rank].eq(rank + 1).all().item<bool>());
    }
  }
  EXPECT_EQ(job.up.apis[0]->calls("send"), job.up.apis[1]->calls("send"));
  EXPECT_GT(job.down.apis[2]->calls("send"), job.down.apis[0]->calls("send"));
}

TEST(NcclMessages, ASenderThatStaysAwayEndsAtTheDeadline) {
  const TwoWayJob job(2, Seconds(0.3));
  const Work work = job.groups[1]->receive(at::zeros({2}), 0, 7);
  EXPECT_THROW(work.synchronize(), CommError);
  EXPECT_THROW(job.groups[1]->receive(at::zeros({2}), 0, 8), CommError);
}

TEST(NcclMessages, AnErrorOfNcclFailsTheMessage) {
  const TwoWayJob job(2);
  job.up.apis[0]->arm({.call = "send"});
  EXPECT_THROW(job.groups[0]->send(at::zeros({2}), 1, 7), CommError);
  // Posting throws already where the news is there.
  EXPECT_THROW(job.groups[1]->receive(at::zeros({2}), 0, 7).synchronize(), CommError);
}

TEST(PartOfJob, IsAJobOfItsOwn) {
  const auto job = join_job(4);
  const auto errors = errors_of_ranks(4, [&](int rank) {
    const auto part = part_of_job(job[static_cast<size_t>(rank)], rank % 2);
    EXPECT_EQ(part->size(), 2);
    EXPECT_EQ(part->rank(), rank / 2);
    EXPECT_EQ(part->broadcast(std::to_string(rank)), std::to_string(rank % 2));
    const std::vector<std::string> expected = {std::to_string(rank % 2),
                                               std::to_string(rank % 2 + 2)};
    EXPECT_EQ(part->all_gather(std::to_string(rank)), expected);
    part->barrier();
  });
  EXPECT_THAT(errors, Each(IsEmpty()));
  job[3]->fail("enough");
  EXPECT_THAT(job[3]->failure().value_or(""), HasSubstr("enough"));
}

TEST(Nccl, OptionsOutOfRangeAndNoNccl) {
  const auto bootstrap = join_job(1)[0];
  EXPECT_THROW(make_nccl_group(bootstrap, nullptr, nullptr, {.deadline = Seconds(-1)}), UsageError);
  EXPECT_THROW(make_device_stream(at::kCPU), UnsupportedError);
  if (!nccl_is_available()) {
    EXPECT_THROW(nccl_version(), UnsupportedError);
    EXPECT_THROW(make_nccl_group(bootstrap, at::kCPU), UnsupportedError);
  }
}

TEST(Nccl, RanksMustAgreeOnTheOrderOfSums) {
  const auto job = join_job(2);
  const auto network = std::make_shared<FakeNetwork>(2);
  const auto errors = errors_of_ranks(2, [&](int rank) {
    const auto api = std::make_shared<FakeNccl>(network, rank);
    make_nccl_group(job[static_cast<size_t>(rank)], api, std::make_unique<FakeStream>(),
                    {.ordered = rank == 1});
  });
  EXPECT_THAT(errors, Each(HasSubstr("ranks disagree on the order of sums")));
}

// An event that a test passes by hand.
class ManualEvent final : public Event::State {
 public:
  bool done() override { return passed; }
  void block(const c10::Stream&) override {}
  void synchronize() override {
    while (!passed) std::this_thread::yield();
  }
  double seconds_since(State&) override { return 0; }
  std::atomic<bool> passed = false;
};

TEST(Nccl, StartsNoSoonerThanItsInputIsReady) {
  const NcclJob job = make_nccl_job(2, {.deadline = Seconds(20)});
  const at::Tensor in = at::zeros({4}), out = at::zeros({4});
  const auto ready = std::make_shared<ManualEvent>();
  const Work first = job.groups[0]->all_reduce(out, in, 0, Event(ready));
  const Work second = job.groups[1]->all_reduce(at::zeros({4}), at::ones({4}), 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(first.done());
  EXPECT_THROW(first.times(), CommError);
  in.fill_(2);
  ready->passed = true;
  first.wait(c10::Stream(c10::Stream::UNSAFE, at::kCPU, 0));
  second.synchronize();
  EXPECT_EQ(out[0].item<float>(), 3);
}

TEST(Nccl, TimesAndTensors) {
  const NcclJob job = make_nccl_job(1, {.timed = true});
  FakeStream& stream = job.apis[0]->stream();
  const Event origin = stream.record(true);
  at::Tensor tensor = at::zeros({4});
  const Work work = job.groups[0]->broadcast(tensor, 0, 0);
  work.synchronize();
  EXPECT_EQ(tensor.use_count(), 1);
  const auto times = work.device_times(origin);
  ASSERT_TRUE(times);
  EXPECT_GE(times->started, 0);
  EXPECT_GE(times->finished, times->started);
  EXPECT_FALSE(work.device_times({}));
  EXPECT_FALSE(make_nccl_job(1, {}).groups[0]->barrier(0).device_times(origin));
}

// Takes part in one collective of every kind.
void take_part(Group& group) {
  const auto size = static_cast<int64_t>(group.size());
  const at::Tensor one = at::ones({1, 2}), all = at::zeros({size, 2}), other = at::ones({size, 2});
  const std::vector<int64_t> rows(static_cast<size_t>(size), 1);
  group.all_to_all(all, other, rows, rows, 0).synchronize();
  group.all_gather(all, one, 1).synchronize();
  group.reduce_scatter(one, all, 2).synchronize();
  group.all_reduce(one, one, 3).synchronize();
  group.broadcast(one, 1, 4).synchronize();
  group.barrier(5).synchronize();
}

class NcclFaults : public ::testing::TestWithParam<Fault> {};

TEST_P(NcclFaults, EveryRankIsToldWithinTheDeadline) {
  NcclJob job = make_nccl_job(3, {.deadline = Seconds(1)});
  ASSERT_THAT(job.errors, Each(IsEmpty()));
  job.apis[1]->arm(GetParam());
  const Deadline watch(Seconds(100));
  const auto errors = errors_of_ranks(3, [&](int rank) {
    Group& group = *job.groups[static_cast<size_t>(rank)];
    try {
      take_part(group);
    } catch (const CommError&) {
      EXPECT_THROW(group.barrier(9), CommError);
      throw;
    }
  });
  // Of what never ends nobody knows whose fault it is.
  EXPECT_THAT(errors, Each(HasSubstr(GetParam().never ? "deadline" : "rank 1")));
  job.groups.clear();
  EXPECT_LT(watch.elapsed_seconds(), 10);
  for (const auto& api : job.apis) EXPECT_EQ(api->calls("comm_abort"), 1);
}

std::string fault_name(const ::testing::TestParamInfo<Fault>& info) {
  return info.param.call + (info.param.never ? "_never_ends" : "_fails");
}

INSTANTIATE_TEST_SUITE_P(Calls, NcclFaults,
                         ::testing::Values(Fault{"comm_get_async_error"}, Fault{"group_start"},
                                           Fault{"group_end"}, Fault{"send"}, Fault{"recv"},
                                           Fault{"all_gather"}, Fault{"reduce_scatter"},
                                           Fault{"all_reduce"}, Fault{"broadcast"}, Fault{"stream"},
                                           Fault{"stream", true}, Fault{"group_end", true}),
                         fault_name);

class NcclStarts : public ::testing::TestWithParam<Fault> {};

TEST_P(NcclStarts, AFailureWhileRanksMeetReachesAll) {
  const Deadline watch(Seconds(100));
  {
    const NcclJob job = make_nccl_job(3, {.deadline = Seconds(1)}, [](FakeNccl& api, int rank) {
      if (rank == (GetParam().call == "get_unique_id" ? 0 : 2)) api.arm(GetParam());
    });
    EXPECT_THAT(job.errors, Each(Not(IsEmpty())));
    for (const auto& group : job.groups) EXPECT_EQ(group, nullptr);
  }
  EXPECT_LT(watch.elapsed_seconds(), 10);
}

INSTANTIATE_TEST_SUITE_P(Calls, NcclStarts,
                         ::testing::Values(Fault{"get_unique_id"}, Fault{"comm_init_rank"},
                                           Fault{"comm_init_rank", true},
                                           Fault{"comm_get_async_error"}, Fault{"send"},
                                           Fault{"stream", true}, Fault{"group_end", true}),
                         fault_name);

TEST(Nccl, FailuresAtTheEndDoNotHang) {
  for (const Fault& fault :
       {Fault{"comm_finalize"}, Fault{"comm_finalize", true}, Fault{"comm_destroy"}}) {
    NcclJob job = make_nccl_job(2, {.deadline = Seconds(0.3)});
    job.apis[0]->arm(fault);
    const Deadline watch(Seconds(100));
    job.groups.clear();
    EXPECT_LT(watch.elapsed_seconds(), 5);
    EXPECT_EQ(job.apis[0]->calls("comm_abort"), fault.call == "comm_finalize" ? 1 : 0);
  }
}

std::string error_of(const Work& work) {
  try {
    work.synchronize();
  } catch (const CommError& error) {
    EXPECT_TRUE(work.done());
    EXPECT_NE(work.error(), nullptr);
    EXPECT_THROW(work.times(), CommError);
    return error.what();
  }
  return "";
}

TEST(Nccl, TheWatchdogEndsWhatIsOverdue) {
  const NcclJob job = make_nccl_job(2, {.deadline = Seconds(0.3)});
  const Work work = job.groups[0]->barrier(7);  // rank 1 stays away
  const Deadline watch(Seconds(20));
  while (!work.done() && !watch.passed()) std::this_thread::yield();
  EXPECT_LT(watch.elapsed_seconds(), 5);
  EXPECT_THAT(error_of(work), AllOf(HasSubstr("barrier, tag 7, rank 0"),
                                    HasSubstr("not done within the deadline")));
  // The rank that stayed away hears of it at its next launch.
  while (!job.bootstraps[1]->failure() && !watch.passed()) std::this_thread::yield();
  EXPECT_THROW(job.groups[1]->barrier(7), CommError);
}

TEST(Nccl, ADeadlineCountsFromTheStartOnTheDevice) {
  const NcclJob job = make_nccl_job(1, {.deadline = Seconds(0.2)});
  const auto ready = std::make_shared<ManualEvent>();
  const at::Tensor tensor = at::zeros({4});
  const Work work = job.groups[0]->all_reduce(tensor, tensor, 0, Event(ready));
  std::this_thread::sleep_for(std::chrono::milliseconds(400));  // the compute stream is long
  EXPECT_FALSE(work.done());
  ready->passed = true;
  work.synchronize();
  // But a host waits no longer than that for anything.
  const auto never = std::make_shared<ManualEvent>();
  const Work stuck = job.groups[0]->all_reduce(tensor, tensor, 1, Event(never));
  EXPECT_THAT(error_of(stuck), HasSubstr("waited for longer"));
  never->passed = true;
}

TEST(Nccl, AbortFromAnyThread) {
  const NcclJob job = make_nccl_job(3, {.deadline = Seconds(20)});
  const Work work = job.groups[2]->barrier(1), other = job.groups[1]->barrier(1);
  std::thread([&] { job.groups[0]->abort(CommError("the user pressed a key")); }).join();
  for (const Work& each : {work, other}) {
    EXPECT_THAT(error_of(each), HasSubstr("the user pressed a key"));
  }
  for (const auto& group : job.groups) EXPECT_THROW(group->barrier(2), CommError);
}

TEST(Nccl, DestroyedWithPendingWork) {
  NcclJob job = make_nccl_job(2, {.deadline = Seconds(20)});
  const at::Tensor tensor = at::zeros({4});
  const Work orphan = job.groups[0]->broadcast(tensor, 1, 0);
  const Deadline watch(Seconds(20));
  job.groups[0].reset();
  EXPECT_LT(watch.elapsed_seconds(), 5);
  EXPECT_THAT(error_of(orphan), HasSubstr("ended with unfinished collectives"));
  // Word of it travels.
  while (!job.bootstraps[1]->failure() && !watch.passed()) std::this_thread::yield();
  EXPECT_THROW(job.groups[1]->barrier(1), CommError);
}

TEST(Nccl, ARankThatEndsInAnException) {
  NcclJob job = make_nccl_job(2, {.deadline = Seconds(20)});
  const Work work = job.groups[0]->barrier(0);
  try {
    struct Owner {
      std::unique_ptr<Group> group;
    } const owner{std::move(job.groups[1])};
    throw std::runtime_error("a bug");
  } catch (const std::runtime_error&) {
  }
  EXPECT_THAT(error_of(work), HasSubstr("rank 1"));
}

TEST(Nccl, ARankThatIsGone) {
  NcclJob job = make_nccl_job(3, {.deadline = Seconds(1)});
  const Work work = job.groups[0]->barrier(0);
  job.bootstraps[2]->fail("rank 2 is gone");  // as rank 0 reports when its connection closes
  EXPECT_THAT(error_of(work), HasSubstr("rank 2 is gone"));
}

TEST(Nccl, ARankThatLeavesEarly) {
  NcclJob job = make_nccl_job(2, {.deadline = Seconds(1)});
  const Work work = job.groups[0]->barrier(0);
  job.groups[1].reset();
  job.bootstraps[1].reset();
  EXPECT_THAT(error_of(work), HasSubstr("rank"));
  NcclJob next = make_nccl_job(2, {.deadline = Seconds(20)});
  next.groups[1].reset();
  next.bootstraps[1].reset();
  const Deadline limit(Seconds(20));
  while (next.bootstraps[0]->left().empty() && !limit.passed()) std::this_thread::yield();
  EXPECT_THROW(next.groups[0]->barrier(0), CommError);
}

TEST(Nccl, ADeviceThatFails) {
  const NcclJob job = make_nccl_job(2, {.deadline = Seconds(20)});
  const Work work = job.groups[0]->barrier(0);
  job.apis[0]->stream().break_down();
  EXPECT_THAT(error_of(work), AllOf(HasSubstr("the device failed"), HasSubstr("illegal memory")));
}

TEST(Nccl, RowCountsThatDifferAreAnErrorOfTheNetworkAtBest) {
  const NcclJob job = make_nccl_job(2, {.deadline = Seconds(1)});
  const auto errors = errors_of_ranks(2, [&](int rank) {
    const int64_t rows = rank == 0 ? 3 : 2;  // rank 0 sends three rows, rank 1 expects two
    const std::vector<int64_t> own = {rank == 0 ? 0 : rows, rank == 0 ? rows : 0};
    job.groups[static_cast<size_t>(rank)]
        ->all_to_all(at::zeros({rows}), at::zeros({rows}), own, own, 0)
        .synchronize();
    job.groups[static_cast<size_t>(rank)]->barrier(1).synchronize();
  });
  EXPECT_THAT(errors, Each(Not(IsEmpty())));
}

}  // namespace
}  // namespace farskip
