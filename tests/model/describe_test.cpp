#include "farskip/model/describe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "model_test_support.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;

std::string value_of(const std::vector<DescriptionRow>& rows, const std::string& label) {
  for (const DescriptionRow& row : rows) {
    if (row.label == label) return row.value;
  }
  return "(no such row)";
}

TEST(Describe, DeepseekV3) {
  const auto rows = describe_model(load_model("deepseek-v3"));
  EXPECT_EQ(value_of(rows, "layers"), "61 (3 dense + 58 MoE)");
  EXPECT_EQ(value_of(rows, "hidden"), "7,168");
  EXPECT_EQ(value_of(rows, "parameters"), "671.03 B");
  EXPECT_THAT(value_of(rows, "active per token"), HasSubstr("36.63 B"));
  EXPECT_EQ(value_of(rows, "attention"),
            "latent (MLA), 128 heads of 128 + 64 (v 128), kv rank 512, q rank 1,536");
  EXPECT_EQ(value_of(rows, "router"),
            "top 8 of 256, within 4 of 8 groups, sigmoid, correction bias, normalised, x 2.5");
  EXPECT_THAT(value_of(rows, "dtype"), HasSubstr("fp8"));
  EXPECT_EQ(value_of(rows, "executable"), "yes");
  EXPECT_EQ(value_of(rows, "window"), "(no such row)");
}

TEST(Describe, EveryBuiltinModelHasNoEmptyRow) {
  for (const BuiltinModel& builtin : builtin_models()) {
    for (const DescriptionRow& row : describe_model(load_model(std::string(builtin.name)))) {
      EXPECT_FALSE(row.label.empty() || row.value.empty()) << builtin.name << " " << row.label;
    }
  }
  EXPECT_THAT(value_of(describe_model(load_model("llama-4-scout")), "executable"),
              HasSubstr("no: llama4"));
  EXPECT_THAT(value_of(describe_model(load_model("kimi-k2")), "family"), HasSubstr("kimi_k2"));
}

TEST(Describe, ContributionsByRunsOfEqualLayers) {
  const auto rows = describe_contributions(load_model("deepseek-v3"));
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].label, "layers 1-3");
  EXPECT_EQ(rows[0].value, "attention, dense MLP");
  EXPECT_EQ(rows[1].label, "layers 4-61");
  EXPECT_EQ(rows[1].value, "attention, shared experts, routed experts");
  EXPECT_EQ(describe_contributions(load_model("llama-4-maverick")).size(), 48u);
  EXPECT_EQ(describe_contributions(load_model("deepseek-v2-lite"))[0].label, "layer 1");
}

TEST(Describe, WeightsPerRank) {
  const auto rows = describe_weights(load_model("mixtral-8x7b"), 8, 1, 2.0);
  EXPECT_EQ(value_of(rows, "of them routed experts"), "11.27 GB");  // 32 x 3 x 4096 x 14336 x 2
  EXPECT_THROW(describe_weights(load_model("mixtral-8x7b"), 9, 1, 2.0), ConfigError);
}

}  // namespace
}  // namespace farskip
