#pragma once

#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <atomic>
#include <cstdint>
#include <functional>

#include "farskip/comm/event.h"
#include "farskip/cuda/stream_gate.h"

namespace farskip {

// What a QueuedGroup has on a GPU: the stream on which its communication thread moves bytes, and a
// gate at which other streams wait for its collectives while the host runs ahead.
// Thread rule: any thread may call any member.
class DeviceSide {
 public:
  // Throws UnsupportedError for a device other than CUDA, or in a build without it.
  explicit DeviceSide(at::Device device);

  const c10::Stream& stream() const { return stream_; }
  // What is queued on `stream` from now on runs behind collective `index`, or the group's failure.
  void hold(const c10::Stream& stream, int64_t index) const;
  void release(int64_t index) noexcept;
  void release_all() noexcept;

  // Asks for the event again and again until it is passed; false as soon as `give_up` is true.
  static bool await(const Event& event, const std::function<bool()>& give_up);

 private:
  static uint32_t number_of(int64_t index);

  c10::Stream stream_;
  cuda::StreamGate gate_;
};

}  // namespace farskip
