#include "farskip/nn/rope.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <cmath>

#include "farskip/base/error.h"
#include "farskip/nn/tensor_ops.h"
#include "random_tensors.h"

namespace farskip::testing {
namespace {

RopeConfig plain(int dims) {
  RopeConfig config;
  config.dims = dims;
  return config;
}

TEST(RopeFrequencies, FallGeometrically) {
  const RopeFrequencies frequencies = rope_frequencies(plain(8));
  ASSERT_EQ(frequencies.radians.size(), 4u);
  for (int i = 0; i < 4; ++i) EXPECT_FLOAT_EQ(frequencies.radians[i], std::pow(10.0f, -i));
  EXPECT_EQ(frequencies.magnitude, 1.0f);
}

TEST(RopeFrequencies, LinearDividesAll) {
  RopeConfig config = plain(8);
  config.scaling = RopeConfig::Scaling::linear;
  config.factor = 4.0;
  EXPECT_FLOAT_EQ(rope_frequencies(config).radians[1], 0.025f);
}

RopeConfig small_yarn() {
  RopeConfig config = plain(16);
  config.scaling = RopeConfig::Scaling::yarn;
  config.factor = 40.0;
  config.beta_fast = 4.0;
  config.original_max_position = 64;
  return config;
}

// Turns over 64 positions: pair 0.81 makes 4, pair 2.02 makes 1; rounded outwards 0 and 3.
TEST(RopeFrequencies, YarnBlendsBetweenFastAndSlowPairs) {
  const std::vector<float> base = rope_frequencies(plain(16)).radians;
  const std::vector<float> scaled = rope_frequencies(small_yarn()).radians;
  EXPECT_FLOAT_EQ(scaled[0], base[0]);
  EXPECT_FLOAT_EQ(scaled[1], base[1] * (2.0f / 3 + 1.0f / 3 / 40));
  EXPECT_FLOAT_EQ(scaled[2], base[2] * (1.0f / 3 + 2.0f / 3 / 40));
  for (int i = 3; i < 8; ++i) EXPECT_FLOAT_EQ(scaled[i], base[i] / 40);
}

TEST(RopeFrequencies, YarnWithoutTruncationKeepsTheFractions) {
  RopeConfig config = small_yarn();
  config.truncate = false;
  const double low = 16 * std::log(64 / (4 * 2 * M_PI)) / (2 * std::log(1e4));
  const double high = 16 * std::log(64 / (2 * M_PI)) / (2 * std::log(1e4));
  const double slow = (1 - low) / (high - low);
  EXPECT_FLOAT_EQ(rope_frequencies(config).radians[1],
                  rope_frequencies(plain(16)).radians[1] * (1 - slow + slow / 40));
}

TEST(RopeFrequencies, YarnMagnitude) {
  RopeConfig config = small_yarn();
  EXPECT_FLOAT_EQ(rope_frequencies(config).magnitude, 0.1f * std::log(40.0f) + 1);
  config.mscale = 1.0;
  config.mscale_all_dim = 0.707;
  EXPECT_FLOAT_EQ(rope_frequencies(config).magnitude,
                  (0.1f * std::log(40.0f) + 1) / (0.0707f * std::log(40.0f) + 1));
  config.attention_factor = 1.25;
  EXPECT_FLOAT_EQ(rope_frequencies(config).magnitude, 1.25f);
}

TEST(RopeFrequencies, Llama3StretchesLongWaves) {
  RopeConfig config = plain(16);
  config.theta = 500000.0;
  const std::vector<float> base = rope_frequencies(config).radians;
  config.scaling = RopeConfig::Scaling::llama3;
  config.factor = 8.0;
  config.original_max_position = 64;
  const std::vector<float> scaled = rope_frequencies(config).radians;
  EXPECT_FLOAT_EQ(scaled[0], base[0]);                                // 10.2 turns
  const float turns = 64 * base[1] / (2 * static_cast<float>(M_PI));  // 1.97: between 1 and 4
  const float fast = (turns - 1) / 3;
  EXPECT_FLOAT_EQ(scaled[1], base[1] * (fast + (1 - fast) / 8));
  for (int i = 2; i < 8; ++i) EXPECT_FLOAT_EQ(scaled[i], base[i] / 8);
}

TEST(RopeFrequencies, RefusesContradictions) {
  EXPECT_THROW(rope_frequencies(plain(0)), ConfigError);
  EXPECT_THROW(rope_frequencies(plain(7)), ConfigError);
  RopeConfig config = small_yarn();
  config.original_max_position = 0;
  EXPECT_THROW(rope_frequencies(config), ConfigError);
  config = small_yarn();
  config.factor = 0;
  EXPECT_THROW(rope_frequencies(config), ConfigError);
  config.theta = std::nan("");
  EXPECT_THROW(rope_frequencies(config), ConfigError);
}

TEST(Rope, PositionsRestartInEverySequence) {
  const at::Tensor positions = sequence_positions({3, 0, 2});
  EXPECT_TRUE(at::equal(positions, at::cat({at::arange(3), at::arange(2)})));
  EXPECT_EQ(sequence_positions({}).size(0), 0);
  EXPECT_THROW(sequence_positions({3, -1}), Error);
}

// x [T, heads, d] in double, one pair at a time.
at::Tensor slow_rope(const at::Tensor& x, const RopeConfig& config, bool interleaved) {
  at::Tensor result = x.to(at::kDouble).clone();
  auto value = result.accessor<double, 3>();
  for (int64_t t = 0; t < x.size(0); ++t) {
    for (int64_t h = 0; h < x.size(1); ++h) {
      for (int64_t i = 0; i < config.dims / 2; ++i) {
        const double angle = t * std::pow(config.theta, -2.0 * i / config.dims);
        double& a = value[t][h][interleaved ? 2 * i : i];
        double& b = value[t][h][interleaved ? 2 * i + 1 : i + config.dims / 2];
        const double first = a, second = b;
        a = first * std::cos(angle) - second * std::sin(angle);
        b = first * std::sin(angle) + second * std::cos(angle);
      }
    }
  }
  return result;
}

TEST(Rope, TablesOfOtherDevicesAgree) {
  const RopeConfig config{.theta = 10000.0, .dims = 16};
  const at::Tensor positions = sequence_positions({5, 1, 300});
  const RopeTable expected = rope_cos_sin(config, positions);
  const RopeTable found = tensor_ops::rope_table(rope_frequencies(config), positions);
  EXPECT_LT((found.cos - expected.cos).abs().max().item<float>(), 1e-6);
  EXPECT_LT((found.sin - expected.sin).abs().max().item<float>(), 1e-6);
}

TEST(Rope, RotatesTheFirstDimensionsOnly) {
  for (const bool interleaved : {false, true}) {
    for (const int dims : {2, 6, 10}) {
      const RopeTable table = rope_cos_sin(plain(dims), at::arange(7));
      const at::Tensor x = random({7, 3, 10}, 1);
      const at::Tensor expected = slow_rope(x, plain(dims), interleaved);
      const at::Tensor by_loop = x.clone(), by_operators = x.clone();
      apply_rope_(by_loop, table, interleaved);
      tensor_ops::apply_rope_(by_operators, table.cos, table.sin, interleaved);
      EXPECT_LT(relative_error(by_loop, expected), 1e-6);
      EXPECT_LT(relative_error(by_operators, expected), 1e-6);
    }
  }
}

// Rotating pairs where they lie, or after sorting even and odd dimensions apart, is the same to
// every product of q and k.
TEST(Rope, ProductsDoNotDependOnWhereThePairsLie) {
  const RopeTable table = rope_cos_sin(plain(8), at::arange(5));
  const auto sorted = [](const at::Tensor& x) {
    return x.unflatten(-1, {4, 2}).transpose(-1, -2).flatten(-2).contiguous();
  };
  at::Tensor q = random({5, 2, 8}, 1), k = random({5, 2, 8}, 2);
  const at::Tensor q_sorted = sorted(q), k_sorted = sorted(k);
  apply_rope_(q, table, true);
  apply_rope_(k, table, true);
  apply_rope_(q_sorted, table, false);
  apply_rope_(k_sorted, table, false);
  EXPECT_LT(relative_error((q * k).sum(-1), (q_sorted * k_sorted).sum(-1)), 1e-6);
}

TEST(Rope, Bf16RoundsOnce) {
  const RopeTable table = rope_cos_sin(plain(8), at::arange(20));
  const at::Tensor x = random({20, 2, 8}, 3, at::kBFloat16), wide = x.to(at::kFloat);
  apply_rope_(x, table, false);
  apply_rope_(wide, table, false);
  EXPECT_TRUE(at::equal(x, wide.to(at::kBFloat16)));
}

TEST(Rope, TakesNoTokensAndRefusesWhatDoesNotFit) {
  const RopeTable none = rope_cos_sin(plain(4), at::empty({0}, at::kLong));
  apply_rope_(at::empty({0, 2, 4}), none, true);
  const RopeTable table = rope_cos_sin(plain(4), at::arange(3));
  EXPECT_THROW(apply_rope_(at::ones({2, 2, 4}), table, true), Error);
  EXPECT_THROW(apply_rope_(at::ones({3, 2, 3}), table, true), Error);
  EXPECT_THROW(rope_cos_sin(plain(4), at::ones({3})), Error);
}

}  // namespace
}  // namespace farskip::testing
