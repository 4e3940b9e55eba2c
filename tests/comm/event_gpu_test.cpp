#include <ATen/ops/ones.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gtest/gtest.h>

#include "../gpu.h"
#include "farskip/comm/event.h"

namespace farskip {
namespace {

class EventsGpu : public testing::GpuTest {
 protected:
  static c10::Stream new_stream() {
    return c10::impl::VirtualGuardImpl(at::kCUDA).getStreamFromGlobalPool({at::kCUDA, 0}, false);
  }
};

TEST_F(EventsGpu, OfAPoolAreRecordedAnewOnceNobodyHoldsThem) {
  const c10::Stream stream = new_stream();
  const c10::StreamGuard guard(stream);
  EventPool pool(stream.device());
  const Event origin = pool.record(stream, /*timed=*/true);
  // One that is held stays where it was recorded, whatever becomes of others.
  for (int i = 0; i < 3; ++i) {
    const Event begun = pool.record(stream, /*timed=*/true);
    at::Tensor x = at::ones({1 << 20}, at::TensorOptions(stream.device()));
    x.add_(1);
    const Event ended = pool.record(stream, /*timed=*/true), plain = pool.record(stream);
    plain.synchronize();
    EXPECT_TRUE(ended.done());
    EXPECT_GT(ended.seconds_since(begun), 0);
    EXPECT_GE(begun.seconds_since(origin), 0);
  }
}

}  // namespace
}  // namespace farskip
