#pragma once

#include <c10/core/Stream.h>

#include <cstdint>
#include <memory>

namespace farskip::cuda {

// Two numbers by which a GPU's streams and a host thread pace each other, without a multiprocessor:
// one that the host raises and streams wait for, one that streams write and the host reads.
// Whoever raises must not call CUDA while a stream may be waiting: the driver waits for the device
// in unexpected places, such as the first launch of a kernel whose code is not loaded yet.
// Thread rule: any thread may call any member. Made in a build without CUDA: UnsupportedError.
class StreamGate {
 public:
  StreamGate();
  ~StreamGate();
  StreamGate(const StreamGate&) = delete;
  StreamGate& operator=(const StreamGate&) = delete;

  // What is queued on `stream` from now on runs once the host's number is `value` or more. The host
  // does not wait. Throws Error if the driver refuses.
  void hold(const c10::Stream& stream, uint32_t value) const;
  // Never lowers the number.
  void raise(uint32_t value) noexcept;

  // When `stream` gets here it writes `value`. Throws Error if the driver refuses.
  void announce(const c10::Stream& stream, uint32_t value) const;
  // What streams wrote last.
  uint32_t announced() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace farskip::cuda
