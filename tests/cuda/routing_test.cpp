#include "farskip/cuda/routing.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <tuple>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/nn/permutation.h"
#include "farskip/nn/router.h"
#include "gpu_test.h"

namespace farskip::testing {
namespace {

using CudaRouter = GpuTest;
using CudaPlan = GpuTest;

RouterConfig router(int experts, int top_k) {
  RouterConfig config;
  config.experts = experts;
  config.top_k = top_k;
  return config;
}

// One router of every form, at the sizes of models and at odd ones.
std::vector<RouterConfig> routers() {
  std::vector<RouterConfig> all = {router(1, 1),   router(8, 2),   router(37, 5), router(64, 6),
                                   router(128, 8), router(160, 6), router(384, 8)};
  all[1].normalize = true;
  all[3].scale = 16.0;
  all[4].normalize = true;
  all[5].groups = 8;  // DeepSeek-V2
  all[5].kept_groups = 3;
  all[6].scoring = RouterConfig::Scoring::sigmoid;  // Kimi-K2
  all[6].correction_bias = true;
  RouterConfig chosen = router(32, 4);  // gpt_oss, without its bias
  chosen.scoring = RouterConfig::Scoring::softmax_of_chosen;
  all.push_back(chosen);
  for (const auto& [experts, top_k, groups] : {std::tuple{256, 8, 8}, {12, 3, 4}, {96, 7, 32}}) {
    RouterConfig config = router(experts, top_k);  // DeepSeek-V3's rule
    config.scoring = RouterConfig::Scoring::sigmoid;
    config.correction_bias = true;
    config.groups = groups;
    config.kept_groups = groups / 2;
    config.group_score = RouterConfig::GroupScore::sum_of_best_two;
    config.masked_score = -INFINITY;
    config.normalize = true;
    config.normalize_epsilon = 1e-20;
    config.scale = 2.5;
    all.push_back(config);
  }
  return all;
}

cuda::RouterRule rule_of(const RouterConfig& config) {
  return {.experts = config.experts,
          .top_k = config.top_k,
          .scoring = static_cast<cuda::RouterRule::Scoring>(config.scoring),
          .groups = config.groups,
          .kept_groups = config.kept_groups,
          .group_score = static_cast<cuda::RouterRule::GroupScore>(config.group_score),
          .masked_score = static_cast<float>(config.masked_score),
          .normalize = config.normalize,
          .normalize_epsilon = static_cast<float>(config.normalize_epsilon),
          .scale = static_cast<float>(config.scale)};
}

// A few values only: sums with scores are equal or far apart.
at::Tensor bias_of(const RouterConfig& config) {
  if (!config.correction_bias) return {};
  return at::arange(config.experts).remainder(4).to(at::kFloat) / 64;
}

// Logits whose scores are equal or so far apart that the last bits of exp decide nothing.
at::Tensor clear_logits(const RouterConfig& config, int64_t tokens) {
  const at::Tensor logits = random({tokens, config.experts}, 5 + config.experts);
  if (config.scoring == RouterConfig::Scoring::sigmoid) return (logits * 4).round() / 4;
  return (logits * 512).round() / 128 +
         at::arange(config.experts).to(at::kFloat) / (256.0 * config.experts);
}

at::Tensor moved(const at::Tensor& bias) { return bias.defined() ? on_gpu(bias) : bias; }

cuda::RoutingOut routing_out(int64_t tokens, int64_t top_k) {
  return {poisoned({tokens, top_k}, at::kLong), poisoned({tokens, top_k}, at::kFloat)};
}

cuda::PlanOut plan_out(int64_t slots, int64_t experts) {
  return {poisoned({slots}, at::kLong), poisoned({slots}, at::kLong),
          poisoned({experts}, at::kLong)};
}

cuda::RoutingOut choose_on_gpu(const RouterConfig& config, const at::Tensor& logits) {
  const cuda::RoutingOut out = routing_out(logits.size(0), config.top_k);
  cuda::choose_experts_out(out, rule_of(config), on_gpu(logits), moved(bias_of(config)));
  return out;
}

void expect_same_plan(const cuda::PlanOut& found, const DispatchPlan& expected) {
  EXPECT_TRUE(same(found.order, expected.order));
  EXPECT_TRUE(same(found.inverse, expected.inverse));
  EXPECT_TRUE(same(found.counts, expected.counts));
}

at::Tensor shuffled_positions(int64_t experts) {
  return at::randperm(experts, at::make_generator<at::CPUGeneratorImpl>(3), at::kLong);
}

TEST_F(CudaRouter, EveryFormMatchesTheCpu) {
  for (const RouterConfig& config : routers()) {
    for (const int64_t tokens : {0, 1, 31, 700}) {
      const at::Tensor logits = clear_logits(config, tokens);
      const Routing expected = choose_experts(config, logits, bias_of(config));
      const cuda::RoutingOut found = choose_on_gpu(config, logits);
      EXPECT_TRUE(same(found.experts, expected.experts))
          << config.experts << " experts, " << tokens << " tokens";
      EXPECT_LT(elementwise_error(found.weights, expected.weights, 1e-6), 4e-6)
          << config.experts << " experts, " << tokens << " tokens";
    }
  }
}

TEST_F(CudaRouter, LowerIdWinsTies) {
  for (const RouterConfig& config : routers()) {
    if (config.correction_bias) continue;
    const at::Tensor zeros = at::zeros({9, config.experts});
    EXPECT_TRUE(
        same(choose_on_gpu(config, zeros).experts, choose_experts(config, zeros, {}).experts));
    // Few values, many ties; exp of equal logits is equal.
    const at::Tensor steps = (random({200, config.experts}, 4) * 2).round();
    EXPECT_TRUE(
        same(choose_on_gpu(config, steps).experts, choose_experts(config, steps, {}).experts))
        << config.experts;
  }
}

TEST_F(CudaRouter, BiasedTiesAndSignedZeros) {
  RouterConfig config = router(64, 6);
  config.scoring = RouterConfig::Scoring::softmax_of_chosen;
  at::Tensor logits = at::zeros({4, 64});
  logits.narrow(1, 0, 32).fill_(-0.0);
  EXPECT_TRUE(
      same(choose_on_gpu(config, logits).experts, choose_experts(config, logits, {}).experts));
}

TEST_F(CudaRouter, TakesLogitsInTheModelsDtype) {
  const RouterConfig config = router(128, 8);
  const at::Tensor logits = random({300, 128}, 1, at::kBFloat16);
  const Routing expected = choose_experts(config, logits.to(at::kFloat), {});
  const cuda::RoutingOut found = choose_on_gpu(config, logits);
  EXPECT_TRUE(same(found.experts, expected.experts));
  EXPECT_LT(elementwise_error(found.weights, expected.weights, 1e-6), 4e-6);
}

TEST_F(CudaRouter, IdsStayDistinctWithoutNumbers) {
  const RouterConfig config = router(40, 8);
  const at::Tensor experts = choose_on_gpu(config, at::full({3, 40}, NAN)).experts.cpu();
  EXPECT_TRUE((experts.narrow(1, 1, 7) > experts.narrow(1, 0, 7)).all().item<bool>());
  EXPECT_TRUE(((experts >= 0) & (experts < 40)).all().item<bool>());
}

TEST_F(CudaRouter, LogitsAreSummedInFp32) {
  const at::Tensor x = random({50, 512}, 1, at::kBFloat16);
  const at::Tensor weight = random({64, 512}, 2, at::kBFloat16);
  const at::Tensor found = cuda::router_logits(on_gpu(x), on_gpu(weight), true);
  EXPECT_EQ(found.scalar_type(), at::kFloat);
  EXPECT_LT(relative_error(found.cpu(), x.to(at::kDouble).mm(weight.to(at::kDouble).t())), 1e-5);
  EXPECT_EQ(cuda::router_logits(on_gpu(x), on_gpu(weight), false).scalar_type(), at::kBFloat16);
  EXPECT_EQ(cuda::router_logits(on_gpu(x).narrow(0, 0, 0), on_gpu(weight), true).size(0), 0);
}

TEST_F(CudaRouter, LogitsOfAnyShape) {
  for (const int64_t experts : {1, 8, 37, 64, 100, 256, 384}) {
    for (const int64_t tokens : {1, 63, 64, 65, 300}) {
      for (const int64_t width : {64, 192, 200, 1024}) {
        const at::Tensor x = random({tokens, width}, 1, at::kBFloat16);
        const at::Tensor weight = random({experts, width}, 2, at::kBFloat16);
        const at::Tensor expected = x.to(at::kDouble).mm(weight.to(at::kDouble).t());
        const at::Tensor found = cuda::router_logits(on_gpu(x), on_gpu(weight), true).cpu();
        EXPECT_LT(relative_error(found, expected), 1e-5)
            << c10::str(tokens, " x ", width, ", ", experts, " experts");
      }
    }
  }
}

TEST_F(CudaPlan, MatchesTheCpu) {
  for (const int64_t experts : {1, 8, 37, 64, 256, 512}) {
    for (const int64_t top_k : {1, 3, 8}) {
      for (const int64_t tokens : {0, 1, 31, 64, 1000, 9001}) {
        // Any ids do, repeated ones too.
        const at::Tensor ids = at::randint(
            experts, {tokens, top_k}, at::make_generator<at::CPUGeneratorImpl>(tokens), at::kLong);
        const at::Tensor positions = shuffled_positions(experts);
        const cuda::PlanOut found = plan_out(tokens * top_k, experts);
        cuda::make_plan_out(found, on_gpu(ids), on_gpu(positions));
        SCOPED_TRACE(c10::str(experts, " experts, top ", top_k, ", ", tokens, " tokens"));
        expect_same_plan(found, make_plan(ids, positions));
      }
    }
  }
}

TEST_F(CudaPlan, AllSlotsAtOneExpert) {
  const at::Tensor ids = at::ones({5000, 1}, at::kLong) * 17, positions = at::arange(32);
  const cuda::PlanOut found = plan_out(5000, 32);
  cuda::make_plan_out(found, on_gpu(ids), on_gpu(positions));
  expect_same_plan(found, make_plan(ids, positions));
}

TEST_F(CudaPlan, ChoiceAndPlanInOneKernel) {
  for (const RouterConfig& config : routers()) {
    for (const int64_t tokens : {0, 1, 90, 3000}) {
      const at::Tensor logits = on_gpu(random({tokens, config.experts}, 5));
      const at::Tensor positions = shuffled_positions(config.experts);
      const cuda::RoutingOut routing = routing_out(tokens, config.top_k);
      const cuda::PlanOut plan = plan_out(tokens * config.top_k, config.experts);
      cuda::choose_and_plan_out(routing, plan, rule_of(config), logits, moved(bias_of(config)),
                                on_gpu(positions));
      const cuda::RoutingOut alone = choose_on_gpu(config, logits);
      EXPECT_TRUE(at::equal(routing.experts, alone.experts));
      EXPECT_TRUE(at::equal(routing.weights, alone.weights));
      expect_same_plan(plan, make_plan(routing.experts.cpu(), positions));
    }
  }
}

TEST_F(CudaRouter, RefusesWhatDoesNotFit) {
  const at::Tensor logits = at::ones({2, 8}, at::kCUDA);
  const cuda::RoutingOut out = routing_out(2, 2);
  EXPECT_THROW(cuda::choose_experts_out(out, rule_of(router(9, 2)), logits, {}), Error);
  EXPECT_THROW(cuda::choose_experts_out(out, rule_of(router(8, 3)), logits, {}), Error);
  EXPECT_THROW(cuda::choose_experts_out(out, rule_of(router(8, 9)), logits, {}), Error);
  EXPECT_THROW(cuda::choose_experts_out(out, rule_of(router(600, 2)), logits, {}),
               UnsupportedError);
  EXPECT_THROW(cuda::choose_experts_out(out, rule_of(router(8, 2)), logits, at::ones({8})), Error);
  EXPECT_THROW(cuda::make_plan_out(plan_out(4, 8), out.experts.to(at::kInt), out.experts), Error);
}

}  // namespace
}  // namespace farskip::testing
