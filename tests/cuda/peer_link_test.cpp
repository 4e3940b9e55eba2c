#include "farskip/cuda/peer_link.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gtest/gtest.h>

#include <vector>

#include "farskip/base/error.h"
#include "gpu_test.h"

namespace farskip::cuda {
namespace {

class PeerLinks : public testing::GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (!IsSkipped() && devices().deviceCount() < 2) GTEST_SKIP() << "Skipped: one GPU";
  }
  static c10::impl::VirtualGuardImpl devices() { return c10::impl::VirtualGuardImpl(at::kCUDA); }
  c10::Stream new_stream() const { return devices().getStreamFromGlobalPool(here, true); }

  const at::Device here{at::kCUDA, 0}, peer{at::kCUDA, 1};
};

TEST_F(PeerLinks, BringTheRowsTheyAreTold) {
  PeerLink link(here, peer);
  const c10::Stream stream = new_stream();
  // Several pieces, rows that begin at any byte, and more copies than a launch takes.
  const at::Tensor wide = at::arange(3 * 40000, at::kInt).view({3, 40000}).to(here);
  const at::Tensor odd = at::arange(10100, at::kInt).to(at::kByte).view({100, 101}).to(here);
  const at::Tensor wide_out = at::zeros_like(wide), odd_out = at::empty_like(odd);
  const RowCopy some[] = {{0, 2, 1}, {1, 0, 0}, {2, 0, 1}};
  std::vector<RowCopy> many;
  for (int64_t i = 0; i < 100; ++i) many.push_back({99 - i, i, 1});
  devices().synchronizeDevice(0);
  for (const double seconds : {0.0, 1e-4}) {
    link.start(stream, wide_out, wide, some, seconds / 10, seconds);
    link.start(stream, odd_out, odd, many, seconds / 10, seconds);
    link.join(stream);
    devices().synchronizeStream(stream);
    EXPECT_TRUE(at::equal(odd_out.flip(0), odd));
    EXPECT_TRUE(at::equal(wide_out[0], wide[2]));
    EXPECT_TRUE(at::equal(wide_out[2], wide[0]));
    EXPECT_EQ(wide_out[1].count_nonzero().item<int64_t>(), 0);
    odd_out.zero_();
    wide_out.zero_();
    devices().synchronizeDevice(0);
  }
}

TEST_F(PeerLinks, ReleaseWhatTheyHoldBack) {
  PeerLink link(here, peer);
  const c10::Stream stream = new_stream();
  const at::Tensor x = at::arange(1 << 20, at::kInt).view({1024, 1024}).to(here);
  const at::Tensor out = at::zeros_like(x);
  const RowCopy all[] = {{0, 0, 1024}};
  devices().synchronizeDevice(0);
  link.start(stream, out, x, all, 0, 1000);
  link.join(stream);
  EXPECT_FALSE(devices().queryStream(stream));
  link.release();
  devices().synchronizeStream(stream);
  EXPECT_TRUE(at::equal(out, x));
}

TEST_F(PeerLinks, RefuseRowsThatAreNotThere) {
  PeerLink link(here, peer);
  const c10::Stream stream = new_stream();
  const at::Tensor x = at::empty({10, 4}, at::TensorOptions(at::kFloat).device(here));
  const at::Tensor far = at::empty({10, 4}, at::TensorOptions(at::kFloat).device(peer));
  const RowCopy behind[] = {{0, 8, 3}}, one[] = {{0, 0, 1}};
  EXPECT_THROW(link.start(stream, x, x, behind, 0, 0), Error);
  EXPECT_THROW(link.start(stream, far, x, one, 0, 0), Error);
  EXPECT_THROW(link.start(stream, at::empty({10, 3}, x.options()), x, one, 0, 0), Error);
}

}  // namespace
}  // namespace farskip::cuda
