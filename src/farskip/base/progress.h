#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace farskip {

// One line on a terminal that says how far a long job is: "label 3/20 15 % note". Appears only when
// the stream is a terminal and the job has run for `delay`; redrawn at most ten times a second;
// wiped by clear() and by the destructor. One thread.
class Progress {
 public:
  // total: number of steps, 0 when it is not known. The stream must outlive the object.
  Progress(std::string label, int64_t total, std::FILE* stream = stderr,
           std::chrono::milliseconds delay = std::chrono::seconds(2));
  // For a stream that is known to be, or not to be, a terminal.
  Progress(std::string label, int64_t total, std::FILE* stream, std::chrono::milliseconds delay,
           bool is_terminal);
  ~Progress() { clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(int64_t done, std::string_view note = {});
  // Call before anything else is written to the terminal.
  void clear();

 private:
  using Clock = std::chrono::steady_clock;

  const std::string label_;
  const int64_t total_;
  std::FILE* const stream_;
  const bool is_terminal_;
  Clock::time_point next_draw_;
  bool drawn_ = false;
};

}  // namespace farskip
