#include "farskip/nn/norm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sqrt.h>
#include <gtest/gtest.h>

#include "farskip/base/error.h"
#include "farskip/nn/tensor_ops.h"
#include "random_tensors.h"

namespace farskip::testing {
namespace {

at::Tensor slow_rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(at::kDouble);
  return wide / at::sqrt(wide.square().mean(-1, true) + eps) * weight.to(at::kDouble);
}

TEST(RmsNorm, MatchesDefinitionAtOddSizes) {
  for (const int64_t width : {1, 7, 16, 33, 128}) {
    const at::Tensor x = random({5, width}, 1), weight = random({width}, 2);
    EXPECT_LT(relative_error(rms_norm(x, weight, 1e-3), slow_rms_norm(x, weight, 1e-3)), 1e-6);
    EXPECT_LT(relative_error(rms_norm(x, weight, 1e-3), tensor_ops::rms_norm(x, weight, 1e-3)),
              1e-6);
  }
}

TEST(RmsNorm, EpsCountsForSmallRows) {
  const at::Tensor x = random({2, 8}, 1) * 1e-3, weight = at::ones({8});
  EXPECT_LT(relative_error(rms_norm(x, weight, 1e-6), slow_rms_norm(x, weight, 1e-6)), 1e-6);
  EXPECT_GT(relative_error(rms_norm(x, weight, 1e-3), slow_rms_norm(x, weight, 1e-6)), 0.5);
}

TEST(RmsNorm, NormsPartsOfLargerTensorsInPlace) {
  const at::Tensor buffer = random({6, 50}, 3), weight = random({10}, 4);
  const at::Tensor heads = buffer.narrow(1, 5, 40).unflatten(1, {4, 10});
  const at::Tensor before = buffer.clone(), expected = slow_rms_norm(heads, weight, 1e-5);
  rms_norm_out(heads, heads, weight, 1e-5);
  EXPECT_LT(relative_error(heads, expected), 1e-6);
  EXPECT_TRUE(at::equal(buffer.narrow(1, 0, 5), before.narrow(1, 0, 5)));
  EXPECT_TRUE(at::equal(buffer.narrow(1, 45, 5), before.narrow(1, 45, 5)));
}

TEST(RmsNorm, RoundsBeforeTheWeightInBf16) {
  const at::Tensor x = random({9, 64}, 5, at::kBFloat16), weight = random({64}, 6, at::kBFloat16);
  const at::Tensor normed = slow_rms_norm(x, at::ones({64}), 1e-6).to(at::kFloat).to(at::kBFloat16);
  EXPECT_TRUE(at::equal(rms_norm(x, weight, 1e-6), normed * weight));
}

TEST(RmsNorm, RowsAreIndependent) {
  const at::Tensor x = random({11, 37}, 7), weight = random({37}, 8);
  const at::Tensor whole = rms_norm(x, weight, 1e-6);
  for (int64_t row = 0; row < x.size(0); ++row) {
    EXPECT_TRUE(at::equal(rms_norm(x.narrow(0, row, 1), weight, 1e-6), whole.narrow(0, row, 1)));
  }
}

TEST(RmsNorm, TakesNoRowsAndRefusesWhatDoesNotFit) {
  EXPECT_EQ(rms_norm(at::empty({0, 8}), at::ones({8}), 1e-6).size(0), 0);
  EXPECT_THROW(rms_norm(at::ones({2, 8}), at::ones({7}), 1e-6), Error);
  EXPECT_THROW(rms_norm(at::ones({2, 8}), at::Tensor(), 1e-6), Error);
  EXPECT_THROW(rms_norm(at::ones({8, 2}).t(), at::ones({8}), 1e-6), Error);
  EXPECT_THROW(rms_norm(at::ones({2, 8}), at::ones({8}, at::kBFloat16), 1e-6), Error);
}

}  // namespace
}  // namespace farskip::testing
