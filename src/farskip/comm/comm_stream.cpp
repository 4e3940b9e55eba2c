#include "farskip/comm/comm_stream.h"

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "farskip/base/error.h"

namespace farskip {
namespace {

class DeviceStream final : public CommStream {
 public:
  explicit DeviceStream(const c10::Stream& stream) : stream_(stream), events_(stream.device()) {}
  at::Device device() const override { return stream_.device(); }
  c10::Stream stream() const override { return stream_; }
  void wait_for(const Event& ready) override { ready.block(stream_); }
  Event record(bool timed) override { return events_.record(stream_, timed); }
  at::Tensor empty(at::IntArrayRef shape, at::ScalarType dtype) override {
    const c10::StreamGuard guard(stream_);
    return at::empty(shape, at::TensorOptions(dtype).device(stream_.device()));
  }
  void run(std::function<void()> function) override {
    const c10::StreamGuard guard(stream_);
    const c10::AutoGradMode no_gradients(false);
    function();
  }

 private:
  const c10::Stream stream_;
  EventPool events_;
};

}  // namespace

std::unique_ptr<CommStream> make_device_stream(at::Device device) {
  const bool known = !device.is_cpu() && c10::impl::hasDeviceGuardImpl(device.type());
  if (!known) {
    throw UnsupportedError(
        "this device has no streams",
        {.expected = "a GPU that this libtorch was built for", .found = device.str()});
  }
  const c10::impl::VirtualGuardImpl implementation(device.type());
  if (!device.has_index() || device.index() >= implementation.deviceCount()) {
    throw UnsupportedError(
        "this machine has no such device",
        {.expected = "an index below " + std::to_string(implementation.deviceCount()),
         .found = device.str(),
         .hint = "LOCAL_RANK chooses the device: start no more ranks on a machine than it has"});
  }
  return std::make_unique<DeviceStream>(implementation.getStreamFromGlobalPool(device, true));
}

}  // namespace farskip
