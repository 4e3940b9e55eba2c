#include "farskip/nn/router.h"

#include <ATen/ops/bincount.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>

#include "farskip/base/error.h"
#include "farskip/nn/tensor_ops.h"
#include "random_tensors.h"

namespace farskip::testing {
namespace {

RouterConfig router(int experts, int top_k) {
  RouterConfig config;
  config.experts = experts;
  config.top_k = top_k;
  return config;
}

// DeepSeek-V3's rule at a small size.
RouterConfig grouped_sigmoid() {
  RouterConfig config = router(12, 3);
  config.scoring = RouterConfig::Scoring::sigmoid;
  config.correction_bias = true;
  config.groups = 4;
  config.kept_groups = 2;
  config.group_score = RouterConfig::GroupScore::sum_of_best_two;
  config.masked_score = -INFINITY;
  config.normalize = true;
  config.normalize_epsilon = 1e-20;
  config.scale = 2.5;
  return config;
}

at::Tensor row(std::vector<float> values) { return at::tensor(values).unsqueeze(0); }
at::Tensor ids(std::vector<int64_t> values) { return at::tensor(values).unsqueeze(0); }

TEST(Router, SoftmaxOverAllExperts) {
  const Routing routing = choose_experts(router(3, 2), row({0, std::log(2.f), std::log(5.f)}), {});
  EXPECT_TRUE(at::equal(routing.experts, ids({1, 2})));
  EXPECT_LT(relative_error(routing.weights, row({0.25f, 0.625f})), 1e-6);
}

TEST(Router, NormalizesAndScales) {
  RouterConfig config = router(3, 2);
  config.normalize = true;
  config.scale = 7.0;
  const Routing routing = choose_experts(config, row({0, std::log(2.f), std::log(5.f)}), {});
  EXPECT_LT(relative_error(routing.weights, row({2.f, 5.f})), 1e-6);
}

TEST(Router, SoftmaxOfTheChosenOnly) {
  RouterConfig config = router(3, 2);
  config.scoring = RouterConfig::Scoring::softmax_of_chosen;
  const Routing routing = choose_experts(config, row({0, std::log(1.f), std::log(3.f)}), {});
  EXPECT_TRUE(at::equal(routing.experts, ids({0, 2})));
  EXPECT_LT(relative_error(routing.weights, row({0.25f, 0.75f})), 1e-6);
}

TEST(Router, LowerIdWinsTies) {
  EXPECT_TRUE(
      at::equal(choose_experts(router(6, 3), at::zeros({1, 6}), {}).experts, ids({0, 1, 2})));
  EXPECT_TRUE(
      at::equal(choose_experts(router(5, 2), row({1, 3, 2, 2, 2}), {}).experts, ids({1, 2})));
}

TEST(Router, BiasChoosesButDoesNotWeigh) {
  RouterConfig config = router(3, 1);
  config.scoring = RouterConfig::Scoring::sigmoid;
  config.correction_bias = true;
  const Routing routing = choose_experts(config, row({0, 1, 2}), at::tensor({5.f, 0.f, 0.f}));
  EXPECT_TRUE(at::equal(routing.experts, ids({0})));
  EXPECT_FLOAT_EQ(routing.weights.item<float>(), 0.5f);
}

TEST(Router, BestGroupsByMaximumOrBySumOfTwo) {
  RouterConfig config = router(6, 2);
  config.groups = 2;
  config.kept_groups = 1;
  const at::Tensor logits = row({5, 0, 0, 4, 4, 1});
  EXPECT_TRUE(at::equal(choose_experts(config, logits, {}).experts, ids({0, 1})));
  config.scoring = RouterConfig::Scoring::sigmoid;
  config.group_score = RouterConfig::GroupScore::sum_of_best_two;
  EXPECT_TRUE(at::equal(choose_experts(config, logits, {}).experts, ids({3, 4})));
}

// Two ways to write the same rule.
TEST(Router, LoopAgreesWithOperators) {
  std::vector<RouterConfig> configs = {router(7, 3), router(8, 8), grouped_sigmoid()};
  configs[0].normalize = true;
  configs.push_back(router(12, 4));
  configs.back().groups = 3;
  configs.back().kept_groups = 2;
  configs.back().scale = 1.5;
  configs.push_back(router(9, 2));
  configs.back().scoring = RouterConfig::Scoring::softmax_of_chosen;
  for (const RouterConfig& config : configs) {
    const at::Tensor logits = random({50, config.experts}, 1);
    const at::Tensor bias =
        config.correction_bias ? random({config.experts}, 2) * 0.3 : at::Tensor();
    const Routing found = choose_experts(config, logits, bias);
    const Routing expected = tensor_ops::choose_experts(config, logits, bias);
    EXPECT_TRUE(at::equal(found.experts, expected.experts));
    EXPECT_LT(relative_error(found.weights, expected.weights), 1e-6);
  }
}

TEST(Router, TokensAreIndependent) {
  const RouterConfig config = grouped_sigmoid();
  const at::Tensor logits = random({13, 12}, 1), bias = random({12}, 2);
  const Routing whole = choose_experts(config, logits, bias);
  for (int64_t token = 0; token < 13; ++token) {
    const Routing alone = choose_experts(config, logits.narrow(0, token, 1), bias);
    EXPECT_TRUE(at::equal(alone.experts, whole.experts.narrow(0, token, 1)));
    EXPECT_TRUE(at::equal(alone.weights, whole.weights.narrow(0, token, 1)));
  }
}

TEST(Router, ComputesLogitsInFp32WhereTheModelDoes) {
  RouterConfig config = router(8, 2);
  const at::Tensor x = random({16, 64}, 1, at::kBFloat16);
  const at::Tensor weight = random({8, 64}, 2, at::kBFloat16);
  const at::Tensor exact = x.to(at::kDouble).mm(weight.to(at::kDouble).t());
  EXPECT_GT(relative_error(router_logits(config, x, weight), exact), 1e-4);
  config.fp32 = true;
  EXPECT_LT(relative_error(router_logits(config, x, weight), exact), 1e-6);
  EXPECT_LT(relative_error(router_logits(config, x, weight.to(at::kFloat)), exact), 1e-6);
}

// Garbage in must still be k distinct experts out: the counts of a dispatch rely on it.
TEST(Router, NanLogitsChooseDistinctExperts) {
  for (const RouterConfig& config : {router(6, 3), grouped_sigmoid()}) {
    const at::Tensor bias = config.correction_bias ? at::zeros({config.experts}) : at::Tensor();
    const at::Tensor logits = at::full({1, config.experts}, NAN);
    const at::Tensor chosen = choose_experts(config, logits, bias).experts;
    EXPECT_TRUE(at::equal(chosen, ids({0, 1, 2}))) << chosen;
  }
}

TEST(Router, RefusesContradictions) {
  const auto refused = [](RouterConfig config) {
    EXPECT_THROW(choose_experts(config, at::zeros({1, config.experts}), {}), ConfigError);
  };
  refused(router(4, 0));
  refused(router(4, 5));
  refused(router(0, 1));
  RouterConfig config = router(6, 4);
  config.groups = 4;
  refused(config);
  config.groups = 3;
  config.kept_groups = 1;
  refused(config);
  config.kept_groups = 4;
  refused(config);
  config = router(4, 1);
  config.zero_experts = 2;
  EXPECT_THROW(choose_experts(config, at::zeros({1, 4}), {}), UnsupportedError);
  EXPECT_THROW(choose_experts(router(4, 1), at::zeros({1, 5}), {}), Error);
  EXPECT_THROW(choose_experts(grouped_sigmoid(), at::zeros({1, 12}), {}), Error);
  EXPECT_THROW(route(router(4, 1), at::zeros({1, 8}), at::zeros({4, 9}), {}), Error);
}

TEST(Router, TakesNoTokens) {
  const Routing routing = route(router(4, 2), at::empty({0, 8}), at::ones({4, 8}), {});
  EXPECT_EQ(routing.experts.sizes(), at::IntArrayRef({0, 2}));
  EXPECT_EQ(routing.weights.sizes(), at::IntArrayRef({0, 2}));
}

TEST(BalancedRouting, LoadsDifferByAtMostOne) {
  for (const auto& [tokens, experts, top_k, offset] : std::vector<std::array<int64_t, 4>>{
           {256, 64, 6, 0}, {7, 16, 4, 5}, {3, 8, 8, 1}, {5, 1, 1, 9}}) {
    const Routing routing = balanced_routing(tokens, experts, top_k, offset);
    const at::Tensor loads = at::bincount(routing.experts.flatten(), {}, experts);
    EXPECT_LE(loads.max().item<int64_t>() - loads.min().item<int64_t>(), 1);
    const at::Tensor steps = routing.experts.diff();
    EXPECT_TRUE(top_k == 1 || steps.min().item<int64_t>() >= 1)
        << "ids must be distinct, ascending";
    EXPECT_FLOAT_EQ(routing.weights.sum().item<float>(), static_cast<float>(tokens));
  }
  EXPECT_EQ(balanced_routing(0, 8, 2, 0).experts.size(0), 0);
  EXPECT_THROW(balanced_routing(4, 2, 3, 0), ConfigError);
  EXPECT_THROW(balanced_routing(-1, 4, 3, 0), ConfigError);
}

}  // namespace
}  // namespace farskip::testing
