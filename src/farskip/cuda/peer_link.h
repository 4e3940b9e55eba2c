#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include <memory>
#include <span>

#include "farskip/cuda/copy.h"

namespace farskip::cuda {

// A second GPU as the other end of a link: its multiprocessors fetch rows from this GPU's memory
// and bring them back, both directions at once, each piece when its own clock says that the link
// would. This GPU lends memory and no multiprocessor, and however fine the pace, a collective is
// one launch.
// Thread rule: release from any thread, the rest from one. Made in a build without CUDA:
// UnsupportedError.
class PeerLink {
 public:
  // Throws UnsupportedError if `peer` can not reach `device`'s memory. Waits for both.
  PeerLink(at::Device device, at::Device peer);
  ~PeerLink();
  PeerLink(const PeerLink&) = delete;
  PeerLink& operator=(const PeerLink&) = delete;

  // Queues, behind `stream` of the device: rows of `from` begin to cross `latency_seconds` after
  // `stream` gets here, and have arrived in `to` after `seconds`; both 0: as fast as they go. The
  // tensors are contiguous and may be undefined without copies. The host does not wait. Throws
  // Error if tensors or rows do not fit or a launch fails.
  void start(const c10::Stream& stream, const at::Tensor& to, const at::Tensor& from,
             std::span<const RowCopy> copies, double latency_seconds, double seconds);
  // What is queued on `stream` from now on runs behind all that was started, and no sooner than
  // its time.
  void join(const c10::Stream& stream);

  // Nothing is held back any more, nor from now on.
  void release() noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace farskip::cuda
