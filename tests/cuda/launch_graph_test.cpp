#include "farskip/cuda/launch_graph.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gtest/gtest.h>

#include <optional>
#include <stdexcept>

#include "farskip/cuda/mlp.h"
#include "gpu_test.h"

namespace farskip::cuda {
namespace {

class LaunchGraphs : public testing::GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    stream_.emplace(implementation_.getStreamFromGlobalPool({at::kCUDA, 0}, false));
    guard_.emplace(*stream_);
    x_ = at::zeros({1000}, at::TensorOptions(at::kFloat).device(at::kCUDA));
    x_.add_(1);  // loads the kernel
    x_.zero_();
    synchronize();
  }
  void synchronize() const { implementation_.synchronizeStream(*stream_); }
  bool all_are(double value) const { return x_.eq(value).all().item<bool>(); }

  const c10::impl::VirtualGuardImpl implementation_{at::kCUDA};
  std::optional<c10::Stream> stream_;
  std::optional<c10::StreamGuard> guard_;
  at::Tensor x_;
};

TEST_F(LaunchGraphs, RunWhatWasQueuedEachTimeTheyAreLaunched) {
  const LaunchGraph graph(*stream_, [&] {
    x_.add_(1);
    x_.mul_(2);
  });
  EXPECT_TRUE(all_are(0)) << "to record ran it";
  graph.launch(*stream_);
  graph.launch(*stream_);
  x_.add_(1);
  graph.launch(*stream_);
  EXPECT_TRUE(all_are(16));
}

// What can not be recorded leaves no error for the next launch to find.
TEST_F(LaunchGraphs, FailAlone) {
  EXPECT_THROW(LaunchGraph(*stream_, [&] { synchronize(); }), std::exception);
  const at::Tensor gate_up = at::zeros({4, 16}, x_.options()),
                   out = at::zeros({4, 8}, x_.options());
  EXPECT_NO_THROW(silu_multiply_out(out, gate_up));
  x_.add_(1);
  EXPECT_TRUE(all_are(1));
}

TEST_F(LaunchGraphs, RecordEventsAnew) {
  const auto timed = [] { return c10::Event(at::kCUDA, c10::EventFlag::BACKEND_DEFAULT); };
  c10::Event origin = timed(), begun = timed(), ended = timed();
  for (c10::Event* event : {&origin, &begun, &ended}) event->record(*stream_);
  const LaunchGraph graph(*stream_, [&] {
    record_event_in_graph(begun.eventId(), *stream_);
    for (int i = 0; i < 50; ++i) x_.add_(1);
    record_event_in_graph(ended.eventId(), *stream_);
  });
  double last = 0;
  for (int i = 0; i < 3; ++i) {
    graph.launch(*stream_);
    synchronize();
    EXPECT_GT(origin.elapsedTime(begun), last);
    EXPECT_GT(begun.elapsedTime(ended), 0);
    last = origin.elapsedTime(ended);
  }
}

TEST_F(LaunchGraphs, AnErrorWhileRecordingLeavesTheStreamAsItWas) {
  EXPECT_THROW(LaunchGraph(*stream_,
                           [&] {
                             x_.add_(1);
                             throw std::runtime_error("broken on purpose");
                           }),
               std::runtime_error);
  x_.add_(3);
  EXPECT_TRUE(all_are(3));
}

TEST_F(LaunchGraphs, PrivateMemoryIsGivenOutAgainForItsPurposeOnly) {
  const auto allocate = [&] { return at::empty({1 << 20}, x_.options()); };
  const PrivateMemory memory({at::kCUDA, 0});
  const void* address = nullptr;
  {
    const PrivateMemory::Use use(memory, *stream_);
    address = allocate().const_data_ptr();
  }
  const at::Tensor other = allocate(), another = allocate();
  EXPECT_NE(other.const_data_ptr(), address);
  EXPECT_NE(another.const_data_ptr(), address);
  const PrivateMemory::Use use(memory, *stream_);
  EXPECT_EQ(allocate().const_data_ptr(), address);
}

// Libtorch would mark it by an event on the stream that is recorded, and ask for that event later.
TEST_F(LaunchGraphs, MemoryThatIsFreedMeanwhileIsKept) {
  const c10::Stream other = implementation_.getStreamFromGlobalPool({at::kCUDA, 0}, false);
  const auto allocate = [&] { return at::empty({1 << 20}, x_.options()); };
  at::Tensor freed;
  {
    const c10::StreamGuard on_other(other);
    freed = allocate();
  }
  implementation_.recordDataPtrOnStream(freed.storage().data_ptr(), *stream_);
  const PrivateMemory memory({at::kCUDA, 0});
  std::optional<LaunchGraph> graph;
  {
    const PrivateMemory::Use use(memory, *stream_);
    graph.emplace(*stream_, [&] {
      x_.add_(1);
      freed.reset();
      x_.add_(1);
    });
  }
  graph->launch(*stream_);
  for (int i = 0; i < 3; ++i) EXPECT_NO_THROW(allocate());
  EXPECT_TRUE(all_are(2));
}

}  // namespace
}  // namespace farskip::cuda
