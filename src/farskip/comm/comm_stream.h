#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include <functional>
#include <memory>

#include "farskip/comm/event.h"

namespace farskip {

// The stream of a device on which a group's communication runs, one thing after the other. A seam:
// tests stand a thread in for it.
// Thread rule: one thread at a time.
class CommStream {
 public:
  virtual ~CommStream() = default;
  virtual at::Device device() const = 0;
  virtual c10::Stream stream() const = 0;
  // What is queued from now on starts behind `ready`.
  virtual void wait_for(const Event& ready) = 0;
  virtual Event record(bool timed) = 0;
  // Uninitialised memory for use on this stream only.
  virtual at::Tensor empty(at::IntArrayRef shape, at::ScalarType dtype) = 0;
  // Runs tensor operations, without autograd, in the stream's order.
  virtual void run(std::function<void()> function) = 0;
};

// A stream of high priority of a device that libtorch knows, of which other users of its stream
// pool may get the same. Throws UnsupportedError for a CPU and for a device that this libtorch or
// machine lacks.
std::unique_ptr<CommStream> make_device_stream(at::Device device);

}  // namespace farskip
