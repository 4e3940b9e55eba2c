// NCCL itself: ranks are processes, on one GPU or several. Each takes part as this program again,
// started for one disabled test. On one GPU every process claims a host of its own, since NCCL
// wants one rank a GPU and host; the bytes then go over loopback sockets.
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

#include "../gpu.h"
#include "child.h"
#include "farskip/base/error.h"
#include "farskip/comm/local.h"
#include "farskip/comm/nccl.h"
#include "jobs.h"
#include "script.h"

namespace farskip {
namespace {

using namespace farskip::testing;
using ::testing::HasSubstr;
using Seconds = std::chrono::duration<double>;

int gpus() {
  if (!c10::impl::hasDeviceGuardImpl(at::kCUDA)) return 0;
  return c10::impl::VirtualGuardImpl(at::kCUDA).deviceCount();
}

// One rank's side, in its process.
struct Rank {
  LaunchPlace place = Environment::from_process().launch_place();
  at::Device device{at::kCUDA, static_cast<at::DeviceIndex>(place.local_rank % gpus())};
  std::shared_ptr<Bootstrap> bootstrap = join_by_sockets(place, {.deadline = Seconds(90)});

  c10::Stream stream() const { return c10::impl::VirtualGuardImpl(at::kCUDA).getStream(device); }
  std::unique_ptr<Group> group(NcclOptions options) const {
    return make_nccl_group(bootstrap, device, options);
  }
};

std::vector<Step> make_steps(int ranks) {
  std::vector<Step> steps;
  for (auto script : {all_to_all_script(ranks), other_kinds_script(ranks), mixed_script(ranks, 50),
                      in_place_script(ranks)}) {
    steps.insert(steps.end(), script.begin(), script.end());
  }
  return steps;
}

bool is_sum(const Step& step) {
  return step.kind == CollectiveKind::all_reduce || step.kind == CollectiveKind::reduce_scatter;
}

bool in_place(const Step& step) {
  return !step.inputs.empty() && step.inputs[0].is_same(step.outputs[0]);
}

// Within what another order of additions may change.
bool close(const at::Tensor& a, const at::Tensor& b) {
  if (!b.is_floating_point() || b.numel() == 0) return same_bits(a, b);
  const double largest = b.to(at::kDouble).abs().max().item<double>();
  const double tolerance = b.scalar_type() == at::kBFloat16 ? 2e-2
                           : b.scalar_type() == at::kHalf   ? 3e-3
                                                            : 1e-5;
  const double distance = (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
  return distance <= tolerance * largest;
}

// Posts every step with this rank's tensors on the device, then compares with `expected`.
void compare(const Rank& rank, Group& group, const std::vector<Step>& steps,
             const std::vector<std::vector<at::Tensor>>& expected, bool ordered) {
  const auto own = static_cast<size_t>(group.rank());
  std::vector<Step> on_device;
  std::vector<Work> works;
  for (const Step& step : steps) {
    Step moved = step;
    for (auto* tensors : {&moved.inputs, &moved.outputs}) {
      if (!tensors->empty()) (*tensors)[own] = (*tensors)[own].to(rank.device);
    }
    if (in_place(step)) moved.outputs = moved.inputs;
    moved.ready = Event::record(rank.stream());
    works.push_back(moved.post(group));
    on_device.push_back(moved);
  }
  for (size_t i = 0; i < steps.size(); ++i) {
    works[i].wait(rank.stream());
    if (steps[i].kind == CollectiveKind::barrier) continue;
    const at::Tensor found = on_device[i].outputs[own].to(at::kCPU);
    const bool exact = ordered || !is_sum(steps[i]);
    EXPECT_TRUE(exact ? same_bits(found, expected[i][own]) : close(found, expected[i][own]))
        << to_string(steps[i].kind) << " " << i << " on rank " << own;
  }
  for (const Work& work : works) work.synchronize();
}

// Disabled: one rank's part, which NcclProcesses.CollectivesEqualTheLocalTransport runs in a
// process of its own.
TEST(NcclRank, DISABLED_Collectives) {
  const Rank rank;
  const std::vector<Step> steps = make_steps(rank.place.size);
  // What the local transport makes of them.
  std::vector<std::vector<at::Tensor>> expected;
  std::vector<Step> local = steps;
  for (Step& step : local) {
    for (at::Tensor& tensor : step.outputs) tensor = tensor.clone();
    // What runs in place must leave the inputs of the NCCL run as they are.
    for (at::Tensor& tensor : step.inputs) tensor = tensor.clone();
  }
  run_and_check(make_local_groups(rank.place.size), local);
  for (const Step& step : local) expected.push_back(step.outputs);
  for (const bool ordered : {false, true}) {
    const auto group = rank.group({.deadline = Seconds(90), .ordered = ordered});
    compare(rank, *group, steps, expected, ordered);
    rank.bootstrap->barrier();
  }
}

// Disabled: one rank's part, which NcclProcesses.DeviceTimes runs in a process of its own.
TEST(NcclRank, DISABLED_Times) {
  const Rank rank;
  const auto group = rank.group({.timed = true});
  const at::Tensor tensor = at::zeros({1 << 20}, at::TensorOptions(rank.device));
  const Event origin = Event::record(rank.stream(), true);
  const Work work = group->all_reduce(tensor, tensor, 0, origin);
  work.synchronize();
  const auto times = work.device_times(origin);
  ASSERT_TRUE(times);
  EXPECT_GE(times->started, 0);
  EXPECT_GT(times->finished, times->started);
  rank.bootstrap->barrier();
}

// Repeats a collective until it fails; what it was told.
std::string fail_at_last(Group& group, const at::Device& device) {
  const at::Tensor tensor = at::zeros({1000}, at::TensorOptions(device));
  const Deadline watch(Seconds(60));
  try {
    for (Tag tag = 0; !watch.passed(); ++tag) group.all_reduce(tensor, tensor, tag).synchronize();
  } catch (const CommError& error) {
    EXPECT_THROW(group.barrier(-5), CommError);
    return error.what();
  }
  return "nothing within a minute";
}

// NCCL may notice a broken connection before word of its reason comes.
::testing::Matcher<std::string> told_of(const std::string& reason) {
  return ::testing::AnyOf(HasSubstr(reason), HasSubstr("NCCL failed"));
}

// Disabled: one rank's part, which NcclProcesses.ARankThatThrows runs in a process of its own.
TEST(NcclRank, DISABLED_Throw) {
  const Rank rank;
  try {
    const auto group = rank.group({.deadline = Seconds(90)});
    group->barrier(0).synchronize();
    if (rank.place.rank == 1) throw std::runtime_error("a bug");
    EXPECT_THAT(fail_at_last(*group, rank.device), told_of("rank 1 stopped with an error"));
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "a bug");
  }
}

// Disabled: one rank's part, which NcclProcesses.ARankThatStalls runs in a process of its own.
TEST(NcclRank, DISABLED_Stall) {
  const Rank rank;
  const auto group = rank.group({.deadline = Seconds(20)});
  if (rank.place.rank == 1) {
    const Deadline watch(Seconds(60));
    while (!rank.bootstrap->failure() && !watch.passed()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    EXPECT_THROW(group->barrier(0), CommError);
  } else {
    EXPECT_THAT(fail_at_last(*group, rank.device), HasSubstr("deadline"));
  }
}

// Disabled: one rank's part, which NcclProcesses.ARankThatIsKilled runs in a process of its own.
TEST(NcclRank, DISABLED_Kill) {
  const Rank rank;
  const auto group = rank.group({.deadline = Seconds(90)});
  group->barrier(0).synchronize();
  if (rank.place.rank == 1) raise(SIGKILL);
  EXPECT_THAT(fail_at_last(*group, rank.device), told_of("rank 1 is gone"));
}

// Runs one of the tests above on `ranks` processes. `killed`: the rank that does not come back.
void run_job(const std::string& test, int ranks, int killed = -1) {
  const int port = free_port();
  std::vector<std::unique_ptr<Child>> children;
  for (int rank = 0; rank < ranks; ++rank) {
    auto variables = rank_variables(rank, ranks, port);
    if (gpus() < ranks) {
      variables["NCCL_HOSTID"] = "farskip-test-" + std::to_string(rank);
      variables["NCCL_SOCKET_IFNAME"] = "lo";
      variables["NCCL_IB_DISABLE"] = "1";
    }
    children.push_back(std::make_unique<Child>("NcclRank.DISABLED_" + test, variables));
  }
  const Deadline deadline(Seconds(150));
  for (int rank = 0; rank < ranks; ++rank) {
    Child& child = *children[static_cast<size_t>(rank)];
    const std::optional<int> status = child.wait(deadline);
    EXPECT_EQ(status.value_or(-1000), rank == killed ? -SIGKILL : 0)
        << "rank " << rank << " of " << ranks << " printed:\n"
        << child.output();
  }
}

class NcclProcesses : public GpuTest, public ::testing::WithParamInterface<int> {};

TEST_P(NcclProcesses, CollectivesEqualTheLocalTransport) { run_job("Collectives", GetParam()); }
TEST_P(NcclProcesses, DeviceTimes) { run_job("Times", GetParam()); }
TEST_P(NcclProcesses, ARankThatThrows) { run_job("Throw", GetParam()); }
TEST_P(NcclProcesses, ARankThatStalls) { run_job("Stall", GetParam()); }
TEST_P(NcclProcesses, ARankThatIsKilled) { run_job("Kill", GetParam(), 1); }

INSTANTIATE_TEST_SUITE_P(Ranks, NcclProcesses, ::testing::Values(2, 4));

TEST(Nccl, TellsItsVersion) {
  EXPECT_TRUE(nccl_is_available());
  EXPECT_THAT(nccl_version(), HasSubstr("2."));
}

}  // namespace
}  // namespace farskip
