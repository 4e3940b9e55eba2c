#pragma once

#include <algorithm>
#include <chrono>

namespace farskip {

// How long one wait may last, counted from construction. Immutable; any thread.
class Deadline {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Deadline(std::chrono::duration<double> limit)
      : begin_(Clock::now()), limit_(std::chrono::ceil<Clock::duration>(limit)) {}

  Clock::time_point end() const { return begin_ + limit_; }
  bool passed() const { return Clock::now() >= end(); }
  Clock::duration left() const { return std::max(Clock::duration::zero(), end() - Clock::now()); }
  double seconds() const { return std::chrono::duration<double>(limit_).count(); }
  double elapsed_seconds() const {
    return std::chrono::duration<double>(Clock::now() - begin_).count();
  }
  // What is left, in milliseconds rounded up and at most `most`, as poll(2) takes it.
  int poll_milliseconds(int most = 1000) const {
    const auto rounded = std::chrono::ceil<std::chrono::milliseconds>(left()).count();
    return static_cast<int>(std::min<decltype(rounded)>(rounded, most));
  }

 private:
  Clock::time_point begin_;
  Clock::duration limit_;
};

}  // namespace farskip
