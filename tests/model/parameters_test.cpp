#include "farskip/model/parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "farskip/base/format.h"
#include "model_test_support.h"

namespace farskip {
namespace {

struct Published {
  const char* name;
  int dense_layers, moe_layers;
  const char* total_billions;
  const char* active_billions;
  double total, active, active_with_embedding;
};

// Billions from data/models/SOURCES.md; exact counts from an independent count of the same files.
constexpr Published published[] = {
    {"deepseek-v2-lite", 1, 26, "15.71", "2.45", 15706484224, 2451435008, 2661150208},
    {"deepseek-v2", 1, 59, "235.74", "20.85", 235741434880, 20851512320, 21375800320},
    {"deepseek-v3", 3, 58, "671.03", "36.63", 671026419200, 36625618432, 37552297472},
    {"glm-4.5-air", 1, 45, "106.85", "12.80", 106852251264, 12803372672, 13424129664},
    {"glm-4.5", 3, 89, "352.80", "32.86", 352797829024, 32856319904, 33632266144},
    {"gpt-oss-120b", 0, 36, "116.83", "5.13", 116829156672, 5132849472, 5711982912},
    {"gpt-oss-20b", 0, 24, "20.91", "3.61", 20914757184, 3608307264, 4187440704},
    {"instella-moe-16b-a3b", 1, 26, "15.86", "2.55", 15862789248, 2553476224, 2817455232},
    {"kimi-k2", 1, 60, "1026.41", "31.69", 1026408232448, 31687095808, 32861500928},
    {"llama-4-maverick", 24, 24, "400.71", "16.15", 400711848960, 16150205440, 17184691200},
    {"llama-4-scout", 0, 48, "107.77", "16.14", 107769861120, 16138408960, 17172894720},
    {"longcat-flash", 0, 28, "560.66", "27.15", 560664980480, 27149511680, 27954818048},
    {"minimax-m2.5", 0, 62, "228.69", "10.42", 228689764864, 10415956480, 11030553088},
    {"minimax-m2", 0, 62, "228.69", "10.42", 228689764864, 10415956480, 11030553088},
    {"mixtral-8x22b", 0, 56, "140.62", "38.96", 140620634112, 38955423744, 39152031744},
    {"mixtral-8x7b", 0, 32, "46.70", "12.75", 46702792704, 12748853248, 12879925248},
    {"moonlight-16b-a3b", 1, 26, "15.96", "2.58", 15960110208, 2579231872, 2914776192},
    {"olmoe-1b-7b", 0, 16, "6.92", "1.18", 6919161856, 1178994688, 1282017280},
    {"qwen2-57b-a14b", 0, 28, "57.41", "13.70", 57408658944, 13704732160, 14249270784},
    {"qwen3-235b-a22b", 0, 94, "235.09", "21.57", 235093634560, 21568433664, 22190763520},
    {"qwen3-30b-a3b", 0, 48, "30.53", "3.04", 30532122624, 3041867776, 3353032704},
};

TEST(Parameters, EveryBuiltinModelHasItsPublishedCounts) {
  ASSERT_EQ(std::size(published), builtin_models().size());
  for (const Published& expected : published) {
    SCOPED_TRACE(expected.name);
    const ModelConfig model = load_model(expected.name);
    const ParameterCount count = count_parameters(model);
    EXPECT_EQ(count.total, expected.total);
    EXPECT_EQ(count.active, expected.active);
    EXPECT_EQ(count.active + count.embedding, expected.active_with_embedding);
    EXPECT_EQ(format_fixed(count.total / 1e9, 2), expected.total_billions);
    EXPECT_EQ(format_fixed(count.active / 1e9, 2), expected.active_billions);
    EXPECT_EQ(model.moe_layer_count(), expected.moe_layers);
    EXPECT_EQ(model.layer_count() - model.moe_layer_count(), expected.dense_layers);
  }
}

TEST(Parameters, TiedHeadIsCountedOnceInTotalAndStillActive) {
  nlohmann::json json = builtin_json("olmoe-1b-7b");
  const ParameterCount apart = count_parameters(parse(json));
  json["tie_word_embeddings"] = true;
  const ParameterCount tied = count_parameters(parse(json));
  EXPECT_EQ(apart.total - tied.total, 50304.0 * 2048.0);
  EXPECT_EQ(apart.active, tied.active);
}

TEST(Parameters, OneRankHoldsTheWholeModel) {
  for (const BuiltinModel& builtin : builtin_models()) {
    const ModelConfig model = load_model(std::string(builtin.name));
    EXPECT_EQ(weight_bytes_per_rank(model, 1, 1, 2.0).total(), 2.0 * count_parameters(model).total)
        << builtin.name;
  }
}

TEST(Parameters, MixtralOverEightExpertAndFourTensorRanksByHand) {
  const ModelConfig model = load_model("mixtral-8x7b");
  const WeightBytes bytes = weight_bytes_per_rank(model, 8, 4, 1.0);
  EXPECT_EQ(bytes.experts, 32.0 * 3 * 4096 * 14336);
  // 8 of 32 heads and 2 of 8 k/v heads of 128; router and norms whole; embedding and head whole.
  const double attention = 4096.0 * 128 * (8 + 2 * 2) + 8 * 128 * 4096.0;
  EXPECT_EQ(bytes.other, 32 * (attention + 8 * 4096 + 2 * 4096) + 2 * 32000.0 * 4096 + 4096);
}

TEST(Parameters, MoreTensorRanksThanKvHeadsKeepOneEach) {
  const ModelConfig model = load_model("qwen3-30b-a3b");  // 32 heads, 4 k/v heads of 128
  const LayerParameters part = layer_parameters(model, 1, 16);
  EXPECT_EQ(part.attention, 2048.0 * 128 * (2 + 2 * 1) + 2 * 128 * 2048.0 + 2 * 128);
}

TEST(Parameters, ImpossibleSplitsAreRefused) {
  const ModelConfig model = load_model("deepseek-v3");
  EXPECT_THROW(weight_bytes_per_rank(model, 0, 1, 2), ConfigError);
  EXPECT_THROW(weight_bytes_per_rank(model, 257, 1, 2), ConfigError);
  EXPECT_THROW(weight_bytes_per_rank(model, 8, 3, 2), ConfigError);
  EXPECT_THROW(weight_bytes_per_rank(model, 8, 0, 2), ConfigError);
  EXPECT_THROW(weight_bytes_per_rank(model, 8, 1, 0), ConfigError);
  EXPECT_THROW(layer_parameters(model, 0), ConfigError);
  EXPECT_THROW(layer_parameters(model, 62), ConfigError);
}

}  // namespace
}  // namespace farskip
