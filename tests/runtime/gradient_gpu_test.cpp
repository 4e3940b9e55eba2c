#include <gtest/gtest.h>

#include "../gpu.h"
#include "backward.h"
#include "farskip/comm/local.h"
#include "farskip/nn/determinism.h"

// Loss and gradients on a GPU, rank threads sharing it.
namespace farskip::testing {
namespace {

std::vector<std::unique_ptr<Group>> groups(int ranks) {
  return make_local_groups(
      ranks, {.deadline = std::chrono::duration<double>(30), .device = at::Device(at::kCUDA, 0)});
}

// The library's kernels keep to one order of summation while this lives.
class Deterministic {
 public:
  Deterministic() { use_deterministic_kernels(true); }
  ~Deterministic() { use_deterministic_kernels(false); }
  Deterministic(const Deterministic&) = delete;
  Deterministic& operator=(const Deterministic&) = delete;
};

class GpuGradients : public GpuTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(GpuGradients, LossAndGradientsAreGolden) {
  const Fixture fixture(GetParam());
  for (int ranks : {1, 2, 4}) expect_golden_gradients(fixture, ranks, groups);
}

// As far from fp32 as a CPU's bf16, by the kernels of either mode: the whole of each gradient.
TEST_P(GpuGradients, Bfloat16IsAsNearAsOnACpu) {
  const Fixture fixture(GetParam());
  const TokenBatch tokens = fixture.golden_tokens();
  const auto run = [&](at::ScalarType dtype, std::vector<std::unique_ptr<Group>> of) {
    const StepForm form{.schedule = "overlapped", .dtype = dtype, .goal = StepGoal::gradients};
    return run_backward(fixture, fixture.plan("farskip", 2, tokens, form), tokens, 2, {}, dtype,
                        at::kFloat, std::move(of));
  };
  const BackwardResult exact = run(at::kFloat, {}), host = run(at::kBFloat16, {});
  const auto error = [&](const BackwardResult& found, const std::string& name) {
    const at::Tensor& expected = exact.gradients.at(name);
    return ((found.gradients.at(name) - expected).norm() / expected.norm()).item<double>();
  };
  for (const bool deterministic : {false, true}) {
    std::optional<Deterministic> mode;
    if (deterministic) mode.emplace();
    const BackwardResult found = run(at::kBFloat16, groups(2));
    EXPECT_LT(relative_error(found.loss, exact.loss), 1e-2);
    for (const auto& [name, gradient] : exact.gradients) {
      // Few rows may take other experts where two scores are near.
      EXPECT_LT(error(found, name), 2 * error(host, name) + 0.05)
          << name << (deterministic ? ", deterministic" : "");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, GpuGradients,
                         ::testing::Values("deepseek_v2", "deepseek_v2_full", "deepseek_v3",
                                           "deepseek_v3_lite", "qwen3_moe", "olmoe", "mixtral"),
                         [](const auto& info) { return std::string(info.param); });

class GpuGradientBits : public GpuTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(GpuGradientBits, SchedulesDelaysAndRecordingsChangeNone) {
  const Deterministic mode;
  const Fixture fixture(GetParam());
  const TokenBatch tokens = fixture.prefixes({48, 17, 5, 33, 1, 48, 2});
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const int ranks : {1, 3}) {
      for (const int chunks : {1, 2}) {
        SCOPED_TRACE(std::to_string(ranks) + " ranks, chunks " + std::to_string(chunks));
        const auto run = [&](const std::string& schedule, BackwardOptions options = {}) {
          const StepForm form{.schedule = schedule,
                              .two_batch = chunks == 2,
                              .expert_chunks = chunks,
                              .pieces = chunks,
                              .dtype = dtype,
                              .goal = StepGoal::gradients};
          const PlannedStep step = fixture.plan("farskip", ranks, tokens, form);
          return run_backward(fixture, step, tokens, ranks, options, dtype, at::kFloat,
                              groups(ranks));
        };
        const BackwardResult expected = run("blocking", {.records = false});
        expect_same_bits(expected, run("blocking"));
        expect_same_bits(expected, run("released"));
        expect_same_bits(expected, run("overlapped"));
        expect_same_bits(expected, run("overlapped", {.chaos_seed = 7}));
        const BackwardOptions thrice{.repeats = 3, .adds = false};
        expect_same_bits(expected, run("overlapped", thrice));  // the last as recorded
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, GpuGradientBits,
                         ::testing::Values("deepseek_v3", "qwen3_moe", "olmoe"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace farskip::testing
