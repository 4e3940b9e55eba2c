#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "fixture.h"

namespace farskip::testing {
namespace {

constexpr double tolerance = 2e-5;

// Every preset that the oracle has, in both dispatch forms on 1, 2 and 4 ranks (with 4, two ranks
// have no sequence).
class GoldenForward : public ::testing::TestWithParam<std::tuple<const char*, DispatchForm>> {
 protected:
  void expect_golden(const Fixture& fixture, const std::string& preset,
                     const ForwardResult& result) {
    const at::Tensor logits = result.logits();
    const at::Tensor last = logits.view({2, -1, logits.size(1)}).select(1, -1);
    EXPECT_LT(relative_error(last, fixture.golden.view("logits_last." + preset)), tolerance);
    if (fixture.golden.contains("logits." + preset)) {
      EXPECT_LT(relative_error(logits, fixture.golden.view("logits." + preset).flatten(0, 1)),
                tolerance);
    }
    size_t routed = 0;
    for (int layer = 1; layer <= fixture.config().layer_count(); ++layer) {
      if (!fixture.config().layers[layer - 1].routed) continue;
      ++routed;
      const at::Tensor expected =
          fixture.golden.view("experts." + preset + ".layers." + std::to_string(layer - 1));
      EXPECT_TRUE(at::equal(result.routing.at(layer).experts, expected.flatten(0, 1).to(at::kLong)))
          << "layer " << layer;
    }
    EXPECT_EQ(result.routing.size(), routed);
  }
};

TEST_P(GoldenForward, LogitsAndChosenExperts) {
  const auto& [family, dispatch] = GetParam();
  const Fixture fixture(family);
  const TokenBatch tokens = fixture.golden_tokens();
  const bool shared = fixture.golden.contains("logits_last.ladder");
  for (int ranks : {1, 2, 4}) {
    Session session = fixture.session(ranks);
    for (const char* preset : {"standard", "farskip", "attention-only", "mlp-only", "last-2",
                               "fresh-shared", "ladder", "depth-2"}) {
      SCOPED_TRACE(std::string(preset) + " on " + std::to_string(ranks));
      const bool golden = fixture.golden.contains("logits_last." + std::string(preset));
      EXPECT_EQ(golden, shared || (std::string(preset) != "ladder" &&
                                   std::string(preset) != "fresh-shared"));
      if (!golden) continue;
      const StepForm form{.schedule = ranks == 1 ? "blocking" : "overlapped", .dispatch = dispatch};
      const PlannedStep step = fixture.plan(preset, ranks, tokens, form);
      expect_golden(fixture, preset, session.run(step, tokens, {.record_routing = true}));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Families, GoldenForward,
    ::testing::Combine(::testing::Values("deepseek_v2", "deepseek_v2_full", "deepseek_v3",
                                         "deepseek_v3_lite", "qwen3_moe", "olmoe", "mixtral"),
                       ::testing::Values(DispatchForm::per_expert, DispatchForm::per_rank)),
    [](const auto& info) {
      const bool per_rank = std::get<1>(info.param) == DispatchForm::per_rank;
      return std::string(std::get<0>(info.param)) + (per_rank ? "_per_rank" : "");
    });

// Models are causal and sequences independent: a shorter row gives the first rows of the whole one.
TEST(Golden, RaggedBatches) {
  const Fixture fixture("deepseek_v3");
  const std::vector<int64_t> lengths = {17, 48, 1, 5, 33};
  const TokenBatch tokens = fixture.prefixes(lengths);
  for (int ranks : {1, 3}) {
    Session session = fixture.session(ranks);
    for (bool two_batch : {false, true}) {
      for (DispatchForm dispatch : {DispatchForm::per_expert, DispatchForm::per_rank}) {
        const StepForm form{.schedule = "overlapped",
                            .two_batch = two_batch,
                            .expert_chunks = 3,
                            .pieces = 2,
                            .dispatch = dispatch};
        const PlannedStep step = fixture.plan("farskip", ranks, tokens, form);
        const at::Tensor expected =
            fixture.golden_prefixes(fixture.golden.view("logits.farskip"), lengths);
        EXPECT_LT(relative_error(session.run(step, tokens).logits(), expected), tolerance)
            << ranks << " ranks, " << to_string(dispatch);
      }
    }
  }
}

TEST(Golden, LastRowsOnly) {
  const Fixture fixture("olmoe");
  const TokenBatch tokens = fixture.golden_tokens();
  Session session = fixture.session(2);
  const PlannedStep step = fixture.plan(
      "farskip", 2, tokens, {.schedule = "overlapped", .head = HeadRows::last_of_sequence});
  EXPECT_LT(relative_error(session.run(step, tokens).logits(),
                           fixture.golden.view("logits_last.farskip")),
            tolerance);
}

TEST(Golden, Bfloat16IsNear) {
  const Fixture fixture("mixtral");
  const TokenBatch tokens = fixture.golden_tokens();
  Session session = fixture.session(2, at::kBFloat16);
  const PlannedStep step =
      fixture.plan("standard", 2, tokens, {.schedule = "overlapped", .dtype = at::kBFloat16});
  const at::Tensor logits = session.run(step, tokens).logits();
  EXPECT_EQ(logits.scalar_type(), at::kFloat);
  const at::Tensor expected = fixture.golden.view("logits.standard").flatten(0, 1);
  const double error = ((logits - expected).norm() / expected.norm()).item<double>();
  EXPECT_LT(error, 0.1);
  EXPECT_GT(error, 1e-4);  // it was not computed in fp32
}

TEST(Golden, PaddingIsZero) {
  const at::Tensor flat = at::ones({5, 2});
  const std::vector<int64_t> lengths = {2, 3};
  const at::Tensor padded = pad_sequences(flat, lengths, 4);
  EXPECT_EQ(padded.sizes(), (at::IntArrayRef{2, 4, 2}));
  EXPECT_EQ(padded.sum().item<float>(), 10.0f);
  EXPECT_EQ(padded[0].narrow(0, 0, 2).sum().item<float>(), 4.0f);
}

}  // namespace
}  // namespace farskip::testing
