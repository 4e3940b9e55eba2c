#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "fixture.h"
#include "random_tensors.h"

namespace farskip::testing {
namespace {

using Case = std::tuple<const char*, Wiring>;
class Golden : public ::testing::TestWithParam<Case> {};

// The kernels, put together without graph or executor, against an independent implementation.
TEST_P(Golden, LogitsAndChosenExperts) {
  const auto& [family, wiring] = GetParam();
  const Fixture fixture = load_fixture(family);
  const std::string preset = wiring == Wiring::farskip ? "farskip" : "standard";
  const at::Tensor& ids = fixture.golden.at("input_ids");
  const std::vector<int64_t> lengths(ids.size(0), ids.size(1));
  const ForwardResult result = reference_forward(fixture, wiring, ids.flatten(), lengths);

  size_t routed = 0;
  for (int layer = 0; layer < fixture.config.layer_count(); ++layer) {
    if (!fixture.config.layers[layer].routed) continue;
    const at::Tensor& chosen =
        fixture.golden.at("experts." + preset + ".layers." + std::to_string(layer));
    EXPECT_TRUE(at::equal(result.experts.at(routed), chosen.flatten(0, 1).to(at::kLong)))
        << "layer " << layer;
    ++routed;
  }
  EXPECT_EQ(routed, result.experts.size());
  const double error =
      relative_error(result.logits, fixture.golden.at("logits." + preset).flatten(0, 1));
  EXPECT_LT(error, 2e-5);
  RecordProperty("relative_error", std::to_string(error));
}

INSTANTIATE_TEST_SUITE_P(Families, Golden,
                         ::testing::Combine(::testing::Values("deepseek_v2", "deepseek_v2_full",
                                                              "deepseek_v3", "deepseek_v3_lite",
                                                              "qwen3_moe", "olmoe", "mixtral"),
                                            ::testing::Values(Wiring::standard, Wiring::farskip)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) +
                                  (std::get<1>(info.param) == Wiring::farskip ? "_farskip"
                                                                              : "_standard");
                         });

// Ragged batches: a sequence's logits are those of the sequence alone, to the bit.
TEST(Golden, SequencesAreIndependent) {
  const Fixture fixture = load_fixture("deepseek_v3");
  const at::Tensor ids = fixture.golden.at("input_ids").flatten();
  const at::Tensor whole =
      reference_forward(fixture, Wiring::farskip, ids.narrow(0, 0, 60), {17, 0, 43}).logits;
  const at::Tensor first =
      reference_forward(fixture, Wiring::farskip, ids.narrow(0, 0, 17), {17}).logits;
  const at::Tensor second =
      reference_forward(fixture, Wiring::farskip, ids.narrow(0, 17, 43), {43}).logits;
  EXPECT_TRUE(at::equal(whole.narrow(0, 0, 17), first));
  EXPECT_TRUE(at::equal(whole.narrow(0, 17, 43), second));
}

}  // namespace
}  // namespace farskip::testing
