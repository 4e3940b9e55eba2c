#include "farskip/graph/recompute.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "backward.h"
#include "farskip/schedule/memory.h"

namespace farskip::testing {
namespace {

const std::vector<int64_t> lengths = {48, 17, 5, 33, 1, 48, 2};

// What is computed again, and from what, differs between these.
class Recompute : public ::testing::TestWithParam<std::tuple<const char*, int>> {};

TEST_P(Recompute, ChangesNoBit) {
  const auto& [family, ranks] = GetParam();
  const Fixture fixture(family);
  const TokenBatch tokens = fixture.prefixes(lengths);
  auto gradients = [&](StepForm form, RecomputeKind kind, const BackwardOptions& options = {}) {
    form.goal = StepGoal::gradients;
    form.recompute = kind;
    const PlannedStep step = fixture.plan("farskip", ranks, tokens, form);
    return run_backward(fixture, step, tokens, ranks, options);
  };
  for (bool two_batch : {false, true}) {
    const BackwardResult kept =
        gradients({.schedule = "blocking", .two_batch = two_batch}, RecomputeKind::none);
    for (RecomputeKind kind : recompute_kinds()) {
      SCOPED_TRACE(std::string(to_string(kind)) + (two_batch ? ", two-batch" : ""));
      const int chunks = kind == RecomputeKind::none ? 1 : 2;
      for (const char* schedule : {"blocking", "released", "overlapped"}) {
        expect_same_bits(kept, gradients({.schedule = schedule, .two_batch = two_batch}, kind));
      }
      const StepForm cut{.schedule = "overlapped",
                         .two_batch = two_batch,
                         .expert_chunks = chunks,
                         .pieces = chunks};
      expect_same_bits(kept, gradients(cut, kind, {.chaos_seed = 5}));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Recompute,
                         ::testing::Combine(::testing::Values("deepseek_v3", "olmoe"),
                                            ::testing::Values(1, 3)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" +
                                  std::to_string(std::get<1>(info.param));
                         });

TEST(RecomputeBits, OfEveryConnectivityFamilyAndWire) {
  for (const char* family : {"deepseek_v2", "qwen3_moe", "mixtral"}) {
    const Fixture fixture(family);
    const TokenBatch tokens = fixture.prefixes(lengths);
    for (const char* preset : {"standard", "fresh-shared", "ladder"}) {
      for (bool fp8_wire : {false, true}) {
        SCOPED_TRACE(std::string(family) + ", " + preset + (fp8_wire ? ", fp8" : ""));
        auto gradients = [&](RecomputeKind kind) {
          const StepForm form{.fp8_wire = fp8_wire,
                              .dtype = at::kBFloat16,
                              .goal = StepGoal::gradients,
                              .recompute = kind};
          return run_backward(fixture, fixture.plan(preset, 2, tokens, form), tokens, 2, {},
                              at::kBFloat16);
        };
        const BackwardResult kept = gradients(RecomputeKind::none);
        expect_same_bits(kept, gradients(RecomputeKind::all));
        expect_same_bits(kept, gradients(RecomputeKind::all_and_dispatch));
      }
    }
  }
}

double most(const BackwardResult& result) {
  int64_t peak = 0;
  for (const StepResult& rank : result.ranks) peak = std::max(peak, rank.peak_activation_bytes);
  return static_cast<double>(peak);
}

// Each kind holds less than what it adds to, by as much as its schedule says before the run.
TEST(RecomputeMemory, PeakIsAsPredictedAndLessThanWithout) {
  for (const char* family : {"deepseek_v2", "deepseek_v3", "olmoe", "mixtral"}) {
    const Fixture fixture(family);
    const TokenBatch tokens = fixture.prefixes({48, 48, 48, 48});
    for (int ranks : {1, 2, 4}) {
      for (const char* schedule : {"blocking", "overlapped"}) {
        std::map<RecomputeKind, double> peaks;
        for (RecomputeKind kind : recompute_kinds()) {
          SCOPED_TRACE(std::string(family) + " on " + std::to_string(ranks) + ", " + schedule +
                       ", " + to_string(kind));
          const StepForm form{.schedule = schedule,
                              .routing = RoutingMode::balanced,
                              .goal = StepGoal::gradients,
                              .recompute = kind};
          const PlannedStep step = fixture.plan("farskip", ranks, tokens, form);
          const double predicted = peak_activation_bytes(step.graph, step.schedule);
          peaks[kind] = most(run_backward(fixture, step, tokens, ranks));
          EXPECT_NEAR(peaks[kind] / predicted, 1, 0.1);
        }
        for (RecomputeKind kind : {RecomputeKind::attention, RecomputeKind::experts}) {
          EXPECT_LT(peaks[kind], peaks[RecomputeKind::none]) << to_string(kind);
          EXPECT_LT(peaks[RecomputeKind::all], peaks[kind]) << to_string(kind);
        }
        EXPECT_LE(peaks[RecomputeKind::all_and_dispatch], peaks[RecomputeKind::all]);
      }
    }
  }
}

}  // namespace
}  // namespace farskip::testing
