#include <gtest/gtest.h>

#include "backward.h"
#include "farskip/comm/local.h"

namespace farskip::testing {
namespace {

class GoldenGradients : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenGradients, LossAndGradients) {
  const Fixture fixture(GetParam());
  for (int ranks : {1, 2, 4}) {
    expect_golden_gradients(fixture, ranks, [](int count) {
      return make_local_groups(count, {.deadline = std::chrono::duration<double>(20)});
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenGradients,
                         ::testing::Values("deepseek_v2", "deepseek_v2_full", "deepseek_v3",
                                           "deepseek_v3_lite", "qwen3_moe", "olmoe", "mixtral"),
                         [](const auto& info) { return std::string(info.param); });

const std::vector<int64_t> lengths = {48, 17, 5, 33, 1, 48, 2};

class GradientBits : public ::testing::TestWithParam<std::tuple<const char*, int>> {};

TEST_P(GradientBits, SchedulesAndChaosChangeNone) {
  const auto& [family, ranks] = GetParam();
  const Fixture fixture(family);
  const TokenBatch tokens = fixture.prefixes(lengths);
  for (const char* connectivity : {"standard", "fresh-shared"}) {
    for (int chunks : {1, 2}) {
      for (bool two_batch : {false, true}) {
        SCOPED_TRACE(std::string(connectivity) + ", chunks " + std::to_string(chunks) +
                     (two_batch ? ", two-batch" : ""));
        StepForm form{.schedule = "blocking",
                      .two_batch = two_batch,
                      .expert_chunks = chunks,
                      .pieces = chunks,
                      .goal = StepGoal::gradients};
        const BackwardResult blocking =
            run_backward(fixture, fixture.plan(connectivity, ranks, tokens, form), tokens, ranks);
        for (const char* schedule : {"released", "overlapped"}) {
          form.schedule = schedule;
          const PlannedStep step = fixture.plan(connectivity, ranks, tokens, form);
          expect_same_bits(blocking, run_backward(fixture, step, tokens, ranks));
        }
        const PlannedStep step = fixture.plan(connectivity, ranks, tokens, form);
        expect_same_bits(blocking, run_backward(fixture, step, tokens, ranks, {.chaos_seed = 7}));
      }
    }
  }
}

// Chunks and pieces see the same rows and sum in the same order.
TEST_P(GradientBits, ChunksAndPiecesChangeNone) {
  const auto& [family, ranks] = GetParam();
  const Fixture fixture(family);
  const TokenBatch tokens = fixture.prefixes(lengths);
  auto gradients = [&](int chunks, int pieces) {
    const StepForm form{.schedule = "overlapped",
                        .expert_chunks = chunks,
                        .pieces = pieces,
                        .goal = StepGoal::gradients};
    return run_backward(fixture, fixture.plan("farskip", ranks, tokens, form), tokens, ranks);
  };
  const BackwardResult whole = gradients(1, 1);
  for (int chunks : {1, 2, 4}) {
    if (chunks > fixture.config().router.experts / ranks) continue;
    for (int pieces : {1, 3}) {
      SCOPED_TRACE(std::to_string(chunks) + " chunks, " + std::to_string(pieces) + " pieces");
      expect_same_bits(whole, gradients(chunks, pieces));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, GradientBits,
                         ::testing::Combine(::testing::Values("deepseek_v3", "olmoe"),
                                            ::testing::Values(1, 3)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" +
                                  std::to_string(std::get<1>(info.param));
                         });

TEST(Gradients, AddUpOverSteps) {
  const Fixture fixture("deepseek_v2");
  const TokenBatch tokens = fixture.golden_tokens();
  const PlannedStep step =
      fixture.plan("farskip", 2, tokens, {.schedule = "overlapped", .goal = StepGoal::gradients});
  const BackwardResult once = run_backward(fixture, step, tokens, 2);
  const BackwardResult thrice = run_backward(fixture, step, tokens, 2, {.repeats = 3});
  for (const auto& [name, gradient] : once.gradients) {
    EXPECT_LT(relative_error(thrice.gradients.at(name), 3 * gradient), 1e-6) << name;
  }
}

TEST(Gradients, Bfloat16IsNear) {
  const Fixture fixture("qwen3_moe");
  const TokenBatch tokens = fixture.golden_tokens();
  const StepForm form{
      .schedule = "overlapped", .dtype = at::kBFloat16, .goal = StepGoal::gradients};
  const BackwardResult result =
      run_backward(fixture, fixture.plan("farskip", 2, tokens, form), tokens, 2, {}, at::kBFloat16);
  const auto named = by_checkpoint_name(fixture, result.gradients);
  for (const char* name : {"model.norm.weight", "model.layers.2.input_layernorm.weight"}) {
    const at::Tensor expected = fixture.golden.view("grad.farskip." + std::string(name));
    const double error = ((named.at(name) - expected).norm() / expected.norm()).item<double>();
    EXPECT_LT(error, 0.1) << name;
    EXPECT_GT(error, 1e-4) << name;
  }
}

}  // namespace
}  // namespace farskip::testing
