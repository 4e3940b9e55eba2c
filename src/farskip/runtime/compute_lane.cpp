#include "farskip/runtime/compute_lane.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/empty.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace farskip {
namespace {

c10::Stream stream_of(at::Device device, bool high_priority) {
  if (device.is_cpu()) return c10::Stream(c10::Stream::DEFAULT, device);
  return c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, high_priority);
}

}  // namespace

ComputeLane::ComputeLane(at::Device device)
    : queues_(!device.is_cpu()),
      stream_(stream_of(device, false)),
      copy_stream_(stream_of(device, true)),
      events_(device) {}

c10::OptionalStreamGuard ComputeLane::use(const c10::Stream& stream) const {
  return queues_ ? c10::OptionalStreamGuard(stream) : c10::OptionalStreamGuard();
}

at::Tensor ComputeLane::allocate(at::IntArrayRef shape, at::ScalarType type,
                                 const c10::Stream& stream) const {
  // The short way: a step allocates thousands of small tensors.
  if (!queues_) return at::Tensor(at::detail::empty_cpu(shape, type));
  const auto guard = use(stream);
  return at::empty(shape, at::TensorOptions(type).device(stream.device()));
}

void ComputeLane::keep_for(const at::Tensor& tensor, const c10::Stream& stream) const {
  if (!queues_ || !tensor.defined() || !tensor.has_storage()) return;
  c10::impl::VirtualGuardImpl(stream.device_type())
      .recordDataPtrOnStream(tensor.storage().data_ptr(), stream);
}

void queue_copy_to_host(const at::Tensor& tensor, at::Tensor& host) {
  const bool fits = host.defined() && host.sizes() == tensor.sizes() &&
                    host.scalar_type() == tensor.scalar_type();
  if (!fits) {
    host = at::empty(tensor.sizes(), tensor.options().device(at::kCPU).pinned_memory(true));
  }
  host.copy_(tensor, /*non_blocking=*/true);
}

}  // namespace farskip
