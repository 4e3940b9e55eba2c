#pragma once

#include <c10/core/Stream.h>

#include <cstdint>
#include <memory>

namespace farskip::cuda {

// A number that any thread raises and GPU streams wait for without holding a multiprocessor: how
// the host lets a stream go on when something that is no stream's work is over. Thread rule: any
// thread may call any member. Made in a build without CUDA: UnsupportedError.
class StreamGate {
 public:
  StreamGate();
  ~StreamGate();
  StreamGate(const StreamGate&) = delete;
  StreamGate& operator=(const StreamGate&) = delete;

  // What is queued on `stream` from now on runs once the number is `value` or more, 2^31 - 1 at
  // most. The host does not wait. Throws Error if the driver refuses.
  void hold(const c10::Stream& stream, uint32_t value) const;
  // Never lowers the number.
  void raise(uint32_t value) noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace farskip::cuda
