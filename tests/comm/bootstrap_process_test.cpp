// Ranks that are processes of their own, so that they can be killed. A child is this program again,
// started for one disabled test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "child.h"
#include "farskip/base/error.h"
#include "farskip/comm/bootstrap.h"
#include "farskip/comm/deadline.h"
#include "jobs.h"

namespace farskip {
namespace {

using namespace farskip::testing;
using ::testing::HasSubstr;
using Seconds = std::chrono::duration<double>;

// Disabled: a child's part, which the tests below run in a process of its own: join, say so, and
// stay.
TEST(BootstrapChild, DISABLED_Stay) {
  const auto bootstrap = join_by_sockets(Environment::from_process().launch_place(), {});
  bootstrap->barrier();
  const Deadline limit(Seconds(60));
  while (!limit.passed()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

// Ranks 0 and 1 are threads of this process, rank 2 is a child.
TEST(BootstrapProcess, AKilledRankIsNoticedByAllAtOnce) {
  const int port = free_port();
  const Child child("BootstrapChild.DISABLED_Stay", rank_variables(2, 3, port));
  const auto errors = errors_of_ranks(3, [&](int rank) {
    if (rank == 2) return;
    const auto bootstrap = join_by_sockets({.rank = rank, .size = 3, .port = port}, {});
    bootstrap->barrier();
    const Deadline watch(Seconds(20));
    if (rank == 0) child.kill();
    while (!bootstrap->failure() && !watch.passed()) std::this_thread::yield();
    EXPECT_LT(watch.elapsed_seconds(), 5);
    bootstrap->barrier();
  });
  EXPECT_THAT(errors[0], HasSubstr("rank 2 is gone"));
  EXPECT_THAT(errors[1], HasSubstr("rank 2 is gone"));
}

TEST(BootstrapProcess, AKilledRankZeroIsNoticed) {
  const int port = free_port();
  const Child child("BootstrapChild.DISABLED_Stay", rank_variables(0, 2, port));
  const auto bootstrap = join_by_sockets({.rank = 1, .size = 2, .port = port}, {});
  bootstrap->barrier();
  child.kill();
  const Deadline watch(Seconds(20));
  while (!bootstrap->failure() && !watch.passed()) std::this_thread::yield();
  EXPECT_THAT(bootstrap->failure().value_or(""), HasSubstr("rank 0 is gone"));
}

}  // namespace
}  // namespace farskip
