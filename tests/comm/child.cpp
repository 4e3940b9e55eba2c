#include "child.h"

#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <stdexcept>
#include <thread>
#include <vector>

namespace farskip::testing {

Child::Child(const std::string& test, const std::map<std::string, std::string>& variables)
    : output_(memfd_create("output of a child", MFD_CLOEXEC)) {
  std::string program = "/proc/self/exe", filter = "--gtest_filter=" + test,
              all = "--gtest_also_run_disabled_tests";
  char* arguments[] = {program.data(), filter.data(), all.data(), nullptr};
  std::vector<std::string> texts;
  for (const auto& [name, value] : variables) texts.push_back(name + "=" + value);
  // The first of two equal names counts.
  std::vector<char*> environment;
  for (std::string& text : texts) environment.push_back(text.data());
  for (char** each = environ; *each; ++each) environment.push_back(*each);
  environment.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, output_, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, output_, STDERR_FILENO);
  const int error =
      posix_spawn(&process_, program.c_str(), &actions, nullptr, arguments, environment.data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw std::runtime_error("no child process");
}

Child::~Child() {
  if (!status_) {
    kill();
    waitpid(process_, nullptr, 0);
  }
  close(output_);
}

void Child::kill() const {
  if (!status_) ::kill(process_, SIGKILL);
}

std::optional<int> Child::wait(const Deadline& deadline) {
  while (!status_) {
    int status = 0;
    if (waitpid(process_, &status, WNOHANG) == process_) {
      status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    } else if (deadline.passed()) {
      break;
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  return status_;
}

std::string Child::output() const {
  struct stat file {};
  fstat(output_, &file);
  std::string text(static_cast<size_t>(file.st_size), '\0');
  const ssize_t count = pread(output_, text.data(), text.size(), 0);
  text.resize(static_cast<size_t>(std::max<ssize_t>(count, 0)));
  return text;
}

std::map<std::string, std::string> rank_variables(int rank, int size, int port) {
  return {{"RANK", std::to_string(rank)},
          {"WORLD_SIZE", std::to_string(size)},
          {"LOCAL_RANK", std::to_string(rank)},
          {"MASTER_ADDR", "127.0.0.1"},
          {"MASTER_PORT", std::to_string(port)}};
}

}  // namespace farskip::testing
