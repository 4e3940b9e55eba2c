#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace farskip {

// What another program left when it ended.
struct ProgramResult {
  int status = 0;              // its exit status; 128 and more: the signal that ended it
  std::string output, errors;  // stdout and stderr
};

// Runs another program, found as a shell would find it, with `input` as its stdin, and waits for
// its end. words[0] is its name. Throws UnsupportedError if there is no such program, with `hint`;
// FileError if the system can not run it or keep what it writes. Any thread.
ProgramResult run_program(const std::vector<std::string>& words, std::string_view input,
                          const std::string& hint);

}  // namespace farskip
