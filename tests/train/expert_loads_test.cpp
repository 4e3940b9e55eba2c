#include "farskip/train/expert_loads.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "farskip/base/error.h"

namespace farskip {
namespace {

TEST(ExpertLoadFigures, MostOverMeanOfEachRouter) {
  const at::Tensor loads = at::tensor({2, 2, 2, 8, 0, 4, 0, 0, 0}, at::kLong).view({3, 3});
  EXPECT_THAT(max_over_mean_loads(loads), testing::ElementsAre(1.0, 2.0, 1.0));
  EXPECT_TRUE(max_over_mean_loads(at::zeros({0, 4}, at::kLong)).empty());
}

// The mean is 2: the first is chosen too often, the second too seldom, the others just so.
TEST(CorrectionBias, MovesTowardsEvenLoads) {
  const at::Tensor bias = at::tensor({0.5, 0.25, 0.0, -1.0}, at::kFloat);
  update_correction_bias(bias, at::tensor({3, 1, 2, 2}, at::kLong), 0.125);
  EXPECT_TRUE(at::equal(bias, at::tensor({0.375, 0.375, 0.0, -1.0}, at::kFloat)));
}

// 1 + 2 + 2 over three experts: no load is the mean.
TEST(CorrectionBias, MeanNeedNotBeWhole) {
  const at::Tensor bias = at::zeros({3});
  update_correction_bias(bias, at::tensor({1, 2, 2}, at::kLong), 1);
  EXPECT_TRUE(at::equal(bias, at::tensor({1.0, -1.0, -1.0}, at::kFloat)));
}

TEST(CorrectionBias, OtherShapesAreRefused) {
  const at::Tensor bias = at::zeros({3});
  EXPECT_THROW(update_correction_bias(bias, at::zeros({4}, at::kLong), 1), Error);
  EXPECT_THROW(update_correction_bias(bias, at::zeros({3}), 1), Error);
  EXPECT_THROW(update_correction_bias(at::zeros({3}, at::kBFloat16), at::zeros({3}, at::kLong), 1),
               Error);
}

}  // namespace
}  // namespace farskip
