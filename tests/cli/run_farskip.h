#pragma once

#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <string>

namespace farskip {

struct Output {
  int status = -1;
  std::string text;  // stdout
};

// Runs the built command as a shell would.
inline Output farskip(const std::string& arguments, const std::string& errors = "/dev/null") {
  std::string command = FARSKIP_BINARY;
  command += " " + arguments + " 2>" + errors;
  std::FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return {};
  Output output;
  std::array<char, 4096> buffer;
  for (size_t read; (read = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    output.text.append(buffer.data(), read);
  }
  const int status = pclose(pipe);
  output.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return output;
}

}  // namespace farskip
