// Ranks that are processes of their own, so that they can be killed. A child is this program again,
// started for one disabled test.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "farskip/base/error.h"
#include "farskip/comm/bootstrap.h"
#include "farskip/comm/deadline.h"
#include "farskip/comm/socket.h"
#include "jobs.h"

namespace farskip {
namespace {

using namespace farskip::testing;
using ::testing::HasSubstr;
using Seconds = std::chrono::duration<double>;

// A process that runs one disabled test of this program as a rank; killed at the end.
class Child {
 public:
  Child(const std::string& test, int rank, int size, int port) {
    std::string program = "/proc/self/exe", filter = "--gtest_filter=" + test,
                all = "--gtest_also_run_disabled_tests";
    char* arguments[] = {program.data(), filter.data(), all.data(), nullptr};
    std::vector<std::string> variables = {
        "RANK=" + std::to_string(rank), "WORLD_SIZE=" + std::to_string(size),
        "LOCAL_RANK=" + std::to_string(rank), "MASTER_PORT=" + std::to_string(port)};
    std::vector<char*> environment;
    for (std::string& variable : variables) environment.push_back(variable.data());
    environment.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    const int error =
        posix_spawn(&process_, program.c_str(), &actions, nullptr, arguments, environment.data());
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) throw std::runtime_error("no child process");
  }
  ~Child() {
    kill();
    waitpid(process_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  void kill() const { ::kill(process_, SIGKILL); }

 private:
  pid_t process_ = -1;
};

// The children's part: join, say so, and stay.
TEST(BootstrapChild, DISABLED_Stay) {
  const auto bootstrap = join_by_sockets(Environment::from_process().launch_place(), {});
  bootstrap->barrier();
  const Deadline limit(Seconds(60));
  while (!limit.passed()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

// Ranks 0 and 1 are threads of this process, rank 2 is a child.
TEST(BootstrapProcess, AKilledRankIsNoticedByAllAtOnce) {
  const int port = free_port();
  const Child child("BootstrapChild.DISABLED_Stay", 2, 3, port);
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
  const Child child("BootstrapChild.DISABLED_Stay", 0, 2, port);
  const auto bootstrap = join_by_sockets({.rank = 1, .size = 2, .port = port}, {});
  bootstrap->barrier();
  child.kill();
  const Deadline watch(Seconds(20));
  while (!bootstrap->failure() && !watch.passed()) std::this_thread::yield();
  EXPECT_THAT(bootstrap->failure().value_or(""), HasSubstr("rank 0 is gone"));
}

}  // namespace
}  // namespace farskip
