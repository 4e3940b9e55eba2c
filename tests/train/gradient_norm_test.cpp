#include "farskip/train/gradient_norm.h"

#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "farskip/base/error.h"
#include "farskip/base/random.h"

namespace farskip {
namespace {

using testing::IsEmpty;

double squares(std::vector<at::Tensor> shards) { return sum_of_squares(shards); }

at::Tensor normal(int64_t count, at::ScalarType dtype) {
  Random random(static_cast<uint64_t>(count));
  const at::Tensor tensor = at::empty({count}, at::kDouble);
  for (int64_t i = 0; i < count; ++i) tensor.mutable_data_ptr<double>()[i] = random.normal();
  return tensor.to(dtype);
}

TEST(GradientNorm, SumsSquaresOfAllShards) {
  EXPECT_EQ(squares({at::full({3}, 2.0, at::kFloat), at::full({2, 2}, -0.5, at::kBFloat16)}), 13.0);
  EXPECT_EQ(squares({}), 0.0);
  EXPECT_EQ(squares({at::Tensor(), at::zeros({0}, at::kFloat), at::full({1}, 3.0, at::kFloat)}),
            9.0);
}

TEST(GradientNorm, EverySizeAndDtype) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    for (const int64_t count : {1, 15, 16, 17, 16384, 16385, 100'003}) {
      const at::Tensor shard = normal(count, dtype);
      const double exact = shard.to(at::kDouble).square().sum().item<double>();
      EXPECT_NEAR(squares({shard}) / exact, 1, 1e-13) << dtype << " " << count;
    }
  }
}

TEST(GradientNorm, BitsDoNotDependOnThreads) {
  const at::Tensor shard = normal(1'000'003, at::kFloat);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const double one = squares({shard});
  for (const int count : {2, 3, 7}) {
    at::set_num_threads(count);
    EXPECT_EQ(squares({shard}), one) << count;
  }
  at::set_num_threads(threads);
}

TEST(GradientNorm, LargeFiniteValuesStayFinite) {
  const double largest = std::numeric_limits<float>::max();
  const at::Tensor shard = at::full({1000}, largest, at::kFloat);
  EXPECT_NEAR(squares({shard}) / (1000 * largest * largest), 1, 1e-13);
  shard[999].fill_(INFINITY);
  EXPECT_FALSE(std::isfinite(squares({shard})));
  shard[999].fill_(NAN);
  EXPECT_FALSE(std::isfinite(squares({shard})));
}

TEST(GradientNorm, RefusesOtherTensors) {
  EXPECT_THROW(squares({at::zeros({2}, at::kLong)}), Error);
  EXPECT_THROW(squares({at::zeros({2, 3}, at::kFloat).t()}), Error);
}

TEST(GradientNorm, ClippingScalesDownOnly) {
  EXPECT_EQ(clip_factor(16.0, 1.0), 0.25);
  EXPECT_EQ(clip_factor(1.0, 1.0), 1.0);
  EXPECT_EQ(clip_factor(0.25, 1.0), 1.0);
  EXPECT_EQ(clip_factor(0.0, 1.0), 1.0);
  EXPECT_EQ(clip_factor(1e6, 0.0), 1.0);
  EXPECT_THROW(clip_factor(1.0, -1.0), ConfigError);
  EXPECT_THROW(clip_factor(1.0, NAN), ConfigError);
}

TEST(GradientNorm, NonFiniteValuesAreNamed) {
  const at::Tensor bad = at::zeros({4, 5}, at::kFloat);
  bad[1][2].fill_(-INFINITY);
  bad[3][4].fill_(NAN);
  bad[2][0].fill_(NAN);
  const at::Tensor bad_bf16 = at::full({3}, INFINITY, at::kBFloat16);
  const std::vector<NamedTensor> tensors = {{"good", at::arange(5, at::kFloat)},
                                            {"bad", bad},
                                            {"empty", at::zeros({0}, at::kFloat)},
                                            {"none", {}},
                                            {"bf16", bad_bf16}};
  const std::vector<NonFinite> found = find_non_finite(tensors);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].describe(), "bad: 2 NaN and 1 infinite of its values, the first at 7");
  EXPECT_EQ(found[1].describe(), "bf16: 0 NaN and 3 infinite of its values, the first at 0");
  EXPECT_THAT(find_non_finite(std::span(tensors).first(1)), IsEmpty());
}

}  // namespace
}  // namespace farskip
