#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>

#include "farskip/comm/deadline.h"

namespace farskip::testing {

// A process that runs one (disabled) test of this very program, with this process's environment and
// `variables` on top. Killed at the end, if it still runs.
class Child {
 public:
  Child(const std::string& test, const std::map<std::string, std::string>& variables);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  void kill() const;
  // The exit code, or minus the signal that ended it; nothing if it still runs at the deadline.
  std::optional<int> wait(const Deadline& deadline);
  // What it has printed so far.
  std::string output() const;

 private:
  pid_t process_ = -1;
  int output_ = -1;  // an unnamed file
  std::optional<int> status_;
};

// The variables that make it one rank of a job on this machine.
std::map<std::string, std::string> rank_variables(int rank, int size, int port);

}  // namespace farskip::testing
