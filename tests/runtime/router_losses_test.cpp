#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "backward.h"

namespace farskip::testing {
namespace {

const std::vector<int64_t> lengths = {48, 17, 5, 33, 1, 48, 2};

StepForm form_of(const RouterLosses& losses, const char* schedule = "overlapped") {
  return {.schedule = schedule, .goal = StepGoal::gradients, .router_losses = losses};
}

class RouterLossSteps : public ::testing::TestWithParam<const char*> {
 protected:
  BackwardResult run(int ranks, const StepForm& form, const BackwardOptions& options = {}) const {
    return run_backward(fixture_, fixture_.plan("farskip", ranks, tokens_, form), tokens_, ranks,
                        options);
  }

  const RouterLosses losses_{.balance = 2, .sequence_balance = 1, .z = 0.05};
  const Fixture fixture_{GetParam()};
  const TokenBatch tokens_ = fixture_.prefixes(lengths);
};

// The derivative of all losses along the gradient of one layer's router, which is its norm.
TEST_P(RouterLossSteps, GradientsAgreeWithCentralDifferences) {
  const StepForm form = form_of(losses_);
  const BackwardResult made = run(2, form);
  for (const char* router : {"layer.2.router", "layer.3.router"}) {
    const at::Tensor gradient = made.gradients.at(router);
    const double norm = gradient.norm().item<double>();
    auto moved = [&](double by) {
      // Ranks may share a tensor, so it is replaced.
      auto move = [&](Weights& weights) {
        at::Tensor& weight = weights.at(router);
        weight = weight + gradient * (by / norm);
      };
      const BackwardResult result = run(2, form, {.change_weights = move});
      EXPECT_TRUE(at::equal(result.expert_loads, made.expert_loads)) << "too far: " << by;
      return (result.loss.sum() + result.router_losses.sum()).item<double>();
    };
    constexpr double step = 1e-3;
    EXPECT_NEAR((moved(step) - moved(-step)) / (2 * step) / norm, 1, 5e-3) << router;
  }
}

TEST_P(RouterLossSteps, RanksAgree) {
  const BackwardResult alone = run(1, form_of(losses_));
  for (int ranks : {2, 4}) {
    const BackwardResult shared = run(ranks, form_of(losses_));
    EXPECT_LT(relative_error(shared.router_losses, alone.router_losses), 1e-5);
    EXPECT_TRUE(at::equal(shared.expert_loads, alone.expert_loads));
    for (const auto& [name, gradient] : alone.gradients) {
      EXPECT_LT(relative_error(shared.gradients.at(name), gradient), 1e-4) << name;
    }
  }
}

TEST_P(RouterLossSteps, TheLossStaysTheCrossEntropy) {
  const BackwardResult without = run(2, form_of({})), with = run(2, form_of(losses_));
  EXPECT_TRUE(at::equal(without.loss, with.loss));
  EXPECT_FALSE(without.router_losses.defined());
  EXPECT_FALSE(
      at::equal(without.gradients.at("layer.3.router"), with.gradients.at("layer.3.router")));
  // The head stands behind all routers.
  EXPECT_TRUE(at::equal(without.gradients.at("head"), with.gradients.at("head")));
}

TEST_P(RouterLossSteps, FormsAgree) {
  const BackwardResult blocking = run(2, form_of(losses_, "blocking"));
  StepForm form = form_of(losses_);
  form.expert_chunks = form.pieces = 2;
  form.recompute = RecomputeKind::all;
  const BackwardResult cut = run(2, form, {.chaos_seed = 3});
  expect_same_bits(blocking, cut);
  EXPECT_TRUE(at::equal(blocking.router_losses, cut.router_losses));
  form = form_of(losses_);
  form.two_batch = true;
  const BackwardResult halves = run(2, form);
  EXPECT_TRUE(at::equal(blocking.expert_loads, halves.expert_loads));
  EXPECT_LT(relative_error(halves.router_losses, blocking.router_losses), 1e-5);
  for (const auto& [name, gradient] : blocking.gradients) {
    EXPECT_LT(relative_error(halves.gradients.at(name), gradient), 1e-4) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, RouterLossSteps, ::testing::Values("deepseek_v2", "deepseek_v3"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace farskip::testing
