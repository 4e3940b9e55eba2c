#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "farskip/base/error.h"
#include "farskip/cuda/device.h"
#include "farskip/cuda/norm.h"

namespace farskip::testing {
namespace {

TEST(NoCuda, SaysSo) {
  EXPECT_FALSE(cuda_is_available());
  EXPECT_EQ(cuda_version(), "no CUDA (not built in)");
}

TEST(NoCuda, KernelsAreUnsupported) {
  const at::Tensor x = at::ones({2, 8}), weight = at::ones({8});
  EXPECT_THROW(cuda::rms_norm_out(x, x, weight, 1e-6), UnsupportedError);
  EXPECT_THROW(cuda::sum_out(x, std::span(&x, 1)), UnsupportedError);
}

}  // namespace
}  // namespace farskip::testing
