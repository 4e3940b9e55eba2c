#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

#include "farskip/base/files.h"

namespace farskip {

// The built command running on its own. Killed at the end, if it still runs.
class RunningFarskip {
 public:
  // `arguments` are read by a shell; stdout and stderr go to the file `output`.
  RunningFarskip(const std::string& arguments, const std::filesystem::path& output)
      : output_(output) {
    const std::string command =
        std::string("exec ") + FARSKIP_BINARY + " " + arguments + " >" + output.string() + " 2>&1";
    process_ = ::fork();
    if (process_ == 0) {
      ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      ::_exit(127);
    }
  }
  ~RunningFarskip() {
    if (process_ < 0) return;
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
  }
  RunningFarskip(const RunningFarskip&) = delete;
  RunningFarskip& operator=(const RunningFarskip&) = delete;

  void send(int signal) const { ::kill(process_, signal); }

  // Whether `condition` came true within a minute while the command ran.
  template <typename Condition>
  bool runs_until(Condition condition) const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (std::chrono::steady_clock::now() < end) {
      if (condition()) return true;
      siginfo_t ended{};
      ::waitid(P_PID, static_cast<id_t>(process_), &ended, WEXITED | WNOHANG | WNOWAIT);
      if (ended.si_pid == process_) return condition();
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return false;
  }

  // Its exit status, or minus the signal that ended it.
  int wait() {
    runs_until([] { return false; });
    int status = 0;
    if (::waitpid(process_, &status, WNOHANG) != process_) return -1000;  // it hangs
    process_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  std::string output() const { return read_file(output_); }

 private:
  const std::filesystem::path output_;
  pid_t process_ = -1;
};

}  // namespace farskip
