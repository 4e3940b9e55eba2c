#include "farskip/comm/device_side.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <chrono>
#include <thread>

#include "farskip/base/error.h"

namespace farskip {
namespace {

constexpr uint32_t most = 0x7fffffff;

c10::Stream communication_stream(at::Device device) {
  if (!device.is_cuda()) {
    throw UnsupportedError("groups of thread ranks live on CPUs and CUDA devices",
                           {.found = device.str()});
  }
  return c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, true);
}

}  // namespace

DeviceSide::DeviceSide(at::Device device) : stream_(communication_stream(device)) {}

// The gate counts up to 2^31 - 1 collectives: months of them.
uint32_t DeviceSide::number_of(int64_t index) {
  if (index + 1 < most) return static_cast<uint32_t>(index + 1);
  throw CommError("a group on a device has run out of numbers for its collectives",
                  {.hint = "make a new group"});
}

void DeviceSide::hold(const c10::Stream& stream, int64_t index) const {
  gate_.hold(stream, number_of(index));
}

void DeviceSide::release(int64_t index) noexcept { gate_.raise(static_cast<uint32_t>(index + 1)); }

void DeviceSide::release_all() noexcept { gate_.raise(most); }

bool DeviceSide::await(const Event& event, const std::function<bool()>& give_up) {
  // Mostly a matter of microseconds; what takes longer may cost a little more.
  for (int asked = 0; !event.done(); ++asked) {
    if (asked % 64 == 0 && give_up()) return false;
    if (asked > 20000) std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  return true;
}

}  // namespace farskip
