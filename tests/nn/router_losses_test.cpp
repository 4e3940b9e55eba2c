#include "farskip/nn/router_losses.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "differences.h"
#include "farskip/base/error.h"
#include "farskip/nn/router.h"
#include "random_tensors.h"

namespace farskip::testing {
namespace {

using Scoring = RouterConfig::Scoring;

RouterConfig config_of(int experts, int top_k, Scoring scoring) {
  RouterConfig config;
  config.experts = experts;
  config.top_k = top_k;
  config.scoring = scoring;
  return config;
}

at::Tensor count(double tokens) { return at::full({1}, tokens, at::kFloat); }

void expect_near(const at::Tensor& found, const std::vector<double>& expected) {
  const at::Tensor flat = found.reshape({-1});
  ASSERT_EQ(flat.size(0), static_cast<int64_t>(expected.size()));
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(flat[static_cast<int64_t>(i)].item<double>(), expected[i], 1e-6) << i;
  }
}

// Two tokens of one sequence, both with expert 0 of two; scores (3/4, 1/4) and (1/2, 1/2).
class TwoTokens : public ::testing::Test {
 protected:
  RouterLossGradient losses(const RouterLosses& coefficients,
                            const std::vector<int64_t>& lengths = {2},
                            Scoring scoring = Scoring::softmax) const {
    return router_losses(config_of(2, 1, scoring), coefficients, {logits_, experts_, loads_},
                         count(2), lengths);
  }

  const double log2_ = std::log(2.0), log3_ = std::log(3.0), log4_ = std::log(4.0);
  const at::Tensor logits_ = at::tensor({log3_, 0.0, 0.0, 0.0}, at::kFloat).view({2, 2});
  const at::Tensor experts_ = at::tensor({0, 0}, at::kLong).view({2, 1});
  const at::Tensor loads_ = at::tensor({2, 0}, at::kLong);
};

// E / N x (1 x (3/4 + 1/2) + 0), and the gradient of p by the logits times (1, 0).
TEST_F(TwoTokens, BalanceByHand) {
  const RouterLossGradient made = losses({.balance = 1});
  expect_near(made.losses, {1.25, 0, 0});
  expect_near(made.d_logits, {3.0 / 16, -3.0 / 16, 1.0 / 4, -1.0 / 4});
  expect_near(losses({.balance = 0.5}).d_logits, {3.0 / 32, -3.0 / 32, 1.0 / 8, -1.0 / 8});
}

// Expert 1 was chosen by two other tokens elsewhere: loads are even, and the loss has no gradient.
TEST_F(TwoTokens, LoadsOfAllRanksCount) {
  const RouterLossGradient made =
      router_losses(config_of(2, 1, Scoring::softmax), {.balance = 1},
                    {logits_, experts_, at::tensor({2, 2}, at::kLong)}, count(4), {2});
  expect_near(made.losses, {0.5, 0, 0});
  expect_near(made.d_logits, {0, 0, 0, 0});
}

TEST_F(TwoTokens, SequenceBalanceByHand) {
  expect_near(losses({.sequence_balance = 1}).losses, {0, 1.25, 0});
  // Each token a sequence of its own: the same loads in both.
  expect_near(losses({.sequence_balance = 1}, {1, 0, 1}).losses, {0, 1.25, 0});
  const RouterLossGradient apart = router_losses(
      config_of(2, 1, Scoring::softmax), {.sequence_balance = 1},
      {logits_, at::tensor({0, 1}, at::kLong).view({2, 1}), at::Tensor()}, count(2), {1, 1});
  expect_near(apart.losses, {0, 1.25, 0});
  expect_near(apart.d_logits, {3.0 / 16, -3.0 / 16, -1.0 / 4, 1.0 / 4});
}

TEST_F(TwoTokens, ZByHand) {
  const RouterLossGradient made = losses({.z = 1});
  expect_near(made.losses, {0, 0, (log4_ * log4_ + log2_ * log2_) / 2});
  expect_near(made.d_logits, {log4_ * 3 / 4, log4_ / 4, log2_ / 2, log2_ / 2});
}

// Sigmoids (3/4, 1/2) over their sum: p = (3/5, 2/5).
TEST_F(TwoTokens, SigmoidScoresAreMadeToSumToOne) {
  const RouterLossGradient made = losses({.balance = 1}, {2}, Scoring::sigmoid);
  expect_near(made.losses, {3.0 / 5 + 1.0 / 2, 0, 0});
  expect_near(made.d_logits, {0.06, -0.12, 1.0 / 8, -1.0 / 8});
}

TEST_F(TwoTokens, WhatDoesNotFitIsRefused) {
  EXPECT_THROW(router_losses(config_of(2, 1, Scoring::softmax), {.balance = 1},
                             {logits_, experts_, at::Tensor()}, count(2), {2}),
               Error);
  EXPECT_THROW(losses({.sequence_balance = 1}, {3}), Error);
  EXPECT_THROW(router_losses(config_of(2, 2, Scoring::softmax), {.z = 1},
                             {logits_, experts_, loads_}, count(2), {2}),
               Error);
}

// The losses in double precision, straight from their formulas.
double reference(const RouterConfig& config, const RouterLosses& c, const at::Tensor& logits,
                 const at::Tensor& experts, const at::Tensor& loads, double tokens,
                 const std::vector<int64_t>& lengths) {
  double sum = 0, all_loads = loads.sum().item<double>();
  int64_t first = 0;
  for (int64_t length : lengths) {
    std::vector<double> chosen(static_cast<size_t>(config.experts), 0);
    for (int64_t t = first; t < first + length; ++t) {
      for (int64_t slot = 0; slot < config.top_k; ++slot) {
        ++chosen[static_cast<size_t>(experts[t][slot].item<int64_t>())];
      }
    }
    for (int64_t t = first; t < first + length; ++t) {
      std::vector<double> scores;
      double scores_sum = 0, exponentials = 0;
      for (int64_t e = 0; e < config.experts; ++e) {
        const double logit = logits[t][e].item<double>(), power = std::exp(logit);
        exponentials += power;
        scores.push_back(config.scoring == Scoring::sigmoid ? power / (1 + power) : power);
        scores_sum += scores.back();
      }
      for (int64_t e = 0; e < config.experts; ++e) {
        const auto i = static_cast<size_t>(e);
        const double p = scores[i] / scores_sum;
        sum += c.balance * config.experts / tokens * p * loads[e].item<double>() / all_loads;
        sum += c.sequence_balance * config.experts / tokens * p * chosen[i] /
               static_cast<double>(config.top_k * length);
      }
      sum += c.z / tokens * std::pow(std::log(exponentials), 2);
    }
    first += length;
  }
  return sum;
}

TEST(RouterLosses, AgreeWithTheirFormulasAndCentralDifferences) {
  const std::vector<int64_t> lengths = {3, 0, 2, 2};
  const at::Tensor logits = (random({7, 6}, 1) * 2).to(at::kDouble);
  const at::Tensor loads = at::tensor({9, 0, 3, 4, 11, 1}, at::kLong);
  constexpr double tokens = 14;
  for (const Scoring scoring : {Scoring::softmax, Scoring::sigmoid, Scoring::softmax_of_chosen}) {
    const RouterConfig config = config_of(6, 2, scoring);
    const at::Tensor experts = choose_experts(config, logits.to(at::kFloat), {}).experts;
    for (const RouterLosses& c :
         {RouterLosses{.balance = 3}, {.sequence_balance = 2}, {.z = 0.5}, {1, 2, 0.25}}) {
      const auto f = [&] { return reference(config, c, logits, experts, loads, tokens, lengths); };
      const RouterLossGradient made =
          router_losses(config, c, {logits.to(at::kFloat), experts, loads}, count(tokens), lengths);
      EXPECT_NEAR(made.losses.sum().item<double>(), f(), 1e-5);
      EXPECT_LT(relative_error(made.d_logits, differences(logits, 1e-5, f)), 2e-5)
          << static_cast<int>(scoring) << c.balance << c.sequence_balance << c.z;
    }
  }
}

TEST(RouterLosses, RankWithoutTokensAddsNothing) {
  const RouterLossGradient made = router_losses(
      config_of(2, 1, Scoring::softmax), {1, 1, 1},
      {at::empty({0, 2}), at::empty({0, 1}, at::kLong), at::tensor({3, 1}, at::kLong)}, count(4),
      {});
  expect_near(made.losses, {0, 0, 0});
  EXPECT_EQ(made.d_logits.size(0), 0);
}

TEST(ExpertLoads, CountTokensOfSeveralRoutersAndParts) {
  const at::Tensor first = at::tensor({0, 1, 0, 2}, at::kLong).view({2, 2});
  const at::Tensor second = at::tensor({1, 2}, at::kLong).view({1, 2});
  const at::Tensor loads = at::full({2, 3}, 7, at::kLong);
  const std::vector<at::Tensor> of_routers = {first, second};
  expert_loads_out(loads, of_routers);
  expect_near(loads, {2, 1, 1, 0, 1, 1});
  const std::vector<at::Tensor> of_parts = {first, second, second, second};
  expert_loads_out(loads, of_parts);
  expect_near(loads, {2, 2, 2, 0, 2, 2});
}

}  // namespace
}  // namespace farskip::testing
