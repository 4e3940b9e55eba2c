#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>
#include <c10/core/Stream.h>
#include <c10/core/StreamGuard.h>

#include <optional>

#include "farskip/comm/event.h"

namespace farskip {

// Where the compute lane of one rank runs: on the host thread itself for a CPU, on a stream of its
// own for any other device, through c10's generic interfaces. One thread.
class ComputeLane {
 public:
  explicit ComputeLane(at::Device device);

  at::Device device() const { return stream_.device(); }
  // Ops are queued, and the host runs ahead.
  bool queues() const { return queues_; }
  const c10::Stream& stream() const { return stream_; }
  // The stream for small copies to the host that must not wait for what the lane has queued.
  const c10::Stream& copy_stream() const { return copy_stream_; }

  // While it lives, what the calling thread queues goes to `stream`.
  c10::OptionalStreamGuard use(const c10::Stream& stream) const;
  c10::OptionalStreamGuard use() const { return use(stream_); }

  // Behind everything queued so far; empty on a CPU.
  Event mark(bool timed) const { return events_.record(stream_, timed); }
  // Behind everything queued on the copy stream.
  Event mark_copies() const { return events_.record(copy_stream_, false); }

  // Uninitialised memory for use on `stream`.
  at::Tensor allocate(at::IntArrayRef shape, at::ScalarType type, const c10::Stream& stream) const;
  // The tensor's memory is used on `stream` too: once freed it is not given out again before that
  // stream is done with it.
  void keep_for(const at::Tensor& tensor, const c10::Stream& stream) const;

 private:
  bool queues_;
  c10::Stream stream_, copy_stream_;
  mutable EventPool events_;
};

// Queues a copy of what is on a device into `host` on the current stream: complete once that is.
// Pinned memory that `host` has is used again if it fits.
void queue_copy_to_host(const at::Tensor& tensor, at::Tensor& host);

}  // namespace farskip
