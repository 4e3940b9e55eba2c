#include "farskip/model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <tuple>

#include "model_test_support.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;

TEST(Config, DeepseekV3IsReadWhole) {
  const ModelConfig model = load_model("deepseek-v3");
  EXPECT_EQ(model.family, "deepseek_v3");
  EXPECT_EQ(model.fp8_block, 128);
  EXPECT_EQ(model.checkpoint_dtype, "bfloat16");
  EXPECT_EQ(model.attention.qk_head_dim(), 192);
  EXPECT_EQ(model.attention.value_head_dim(), 128);
  EXPECT_EQ(model.attention.lora_norm_eps, 1e-6);
  EXPECT_TRUE(model.rope.interleaved);
  EXPECT_EQ(model.rope.dims, 64);
  EXPECT_EQ(model.rope.scaling, RopeConfig::Scaling::yarn);
  EXPECT_EQ(model.rope.original_max_position, 4096);
  EXPECT_EQ(model.router.groups, 8);
  EXPECT_EQ(model.router.kept_groups, 4);
  EXPECT_EQ(model.router.group_score, RouterConfig::GroupScore::sum_of_best_two);
  EXPECT_EQ(model.router.masked_score, -std::numeric_limits<double>::infinity());
  EXPECT_EQ(model.router.normalize_epsilon, 1e-20);
  EXPECT_EQ(model.router.scale, 2.5);
  EXPECT_TRUE(model.router.correction_bias && model.router.fp32 && model.router.normalize);
  EXPECT_TRUE(model.layers[2].dense());
  EXPECT_EQ(model.layers[3], (LayerKind{.routed = true, .shared = true}));
  EXPECT_TRUE(model.executable());
  // 0.1 ln(40) + 1 = 1.36888794...
  EXPECT_NEAR(model.softmax_scale(), std::pow(192.0, -0.5) * 1.3688879454 * 1.3688879454, 1e-10);
}

TEST(Config, DeepseekV2IgnoresNormTopkProbAndAlwaysScales) {
  nlohmann::json json = builtin_json("deepseek-v2");
  json["norm_topk_prob"] = true;
  json["rms_norm_eps"] = 1e-3;
  const ModelConfig model = parse(json);
  EXPECT_FALSE(model.router.normalize);
  EXPECT_EQ(model.router.scale, 16.0);
  EXPECT_EQ(model.router.groups, 8);
  EXPECT_EQ(model.router.kept_groups, 3);
  EXPECT_EQ(model.router.group_score, RouterConfig::GroupScore::best);
  EXPECT_EQ(model.router.masked_score, 0.0);
  EXPECT_EQ(model.norm_eps, 1e-3);
  EXPECT_EQ(model.attention.lora_norm_eps, 1e-6);
  EXPECT_EQ(model.mlp.shared_width, 2 * 1536);
  json["topk_method"] = "greedy";
  EXPECT_EQ(parse(json).router.groups, 1);
  json["topk_method"] = "group_limited_greedy";
  json["n_group"] = nullptr;
  json["topk_group"] = nullptr;
  EXPECT_EQ(parse(json).router.groups, 1);
}

TEST(Config, SoftmaxScaleHasMscaleOnlyWhereTheFileGivesIt) {
  const ModelConfig instella = load_model("instella-moe-16b-a3b");
  EXPECT_DOUBLE_EQ(instella.softmax_scale(), std::pow(128.0, -0.5));
  EXPECT_DOUBLE_EQ(load_model("olmoe-1b-7b").softmax_scale(), std::pow(128.0, -0.5));
  const double mscale = 0.1 * 0.707 * std::log(40.0) + 1.0;
  EXPECT_DOUBLE_EQ(load_model("deepseek-v2-lite").softmax_scale(),
                   std::pow(192.0, -0.5) * mscale * mscale);
}

TEST(Config, BothKeyStylesGiveTheSameModel) {
  nlohmann::json hub = builtin_json("deepseek-v2-lite");
  nlohmann::json v5 = hub;
  v5["rope_parameters"] = hub["rope_scaling"];
  v5["rope_parameters"]["rope_type"] = "yarn";
  v5["rope_parameters"].erase("type");
  v5["rope_parameters"]["rope_theta"] = hub["rope_theta"];
  v5["dtype"] = hub["torch_dtype"];
  for (const char* key : {"rope_scaling", "rope_theta", "torch_dtype"}) v5.erase(key);
  const ModelConfig a = parse(hub), b = parse(v5);
  EXPECT_EQ(a.rope.theta, b.rope.theta);
  EXPECT_EQ(a.rope.scaling, b.rope.scaling);
  EXPECT_EQ(a.rope.mscale, b.rope.mscale);
  EXPECT_EQ(a.rope.beta_fast, b.rope.beta_fast);
  EXPECT_EQ(a.rope.original_max_position, b.rope.original_max_position);
  EXPECT_EQ(a.checkpoint_dtype, b.checkpoint_dtype);
  EXPECT_EQ(a.softmax_scale(), b.softmax_scale());
}

TEST(Config, RotatedDimensionsFromEveryKeyThatStatesThem) {
  EXPECT_EQ(load_model("glm-4.5").rope.dims, 64);
  EXPECT_EQ(load_model("minimax-m2").rope.dims, 64);    // rope_parameters.partial_rotary_factor
  EXPECT_EQ(load_model("minimax-m2.5").rope.dims, 64);  // rotary_dim
  nlohmann::json glm = builtin_json("glm-4.5");
  glm.erase("partial_rotary_factor");
  EXPECT_EQ(parse(glm).rope.dims, 64);
}

TEST(Config, FamiliesDifferInHowTheyNormAndChoose) {
  using QkNorm = AttentionConfig::QkNorm;
  const ModelConfig qwen3 = load_model("qwen3-30b-a3b");
  EXPECT_EQ(qwen3.attention.qk_norm, QkNorm::per_head);
  EXPECT_EQ(qwen3.attention.head_dim, 128);  // not 2048 / 32
  EXPECT_TRUE(qwen3.router.normalize);
  EXPECT_FALSE(qwen3.router.fp32);
  const ModelConfig olmoe = load_model("olmoe-1b-7b");
  EXPECT_EQ(olmoe.attention.qk_norm, QkNorm::all_heads);
  EXPECT_FALSE(olmoe.router.normalize);
  EXPECT_EQ(olmoe.norm_eps, 1e-5);  // not stated in the file
  EXPECT_EQ(olmoe.mlp.expert_width, 1024);
  const ModelConfig mixtral = load_model("mixtral-8x7b");
  EXPECT_TRUE(mixtral.router.normalize);
  EXPECT_EQ(mixtral.router.normalize_epsilon, 0.0);
  EXPECT_EQ(mixtral.attention.head_dim, 128);
  const ModelConfig gpt_oss = load_model("gpt-oss-20b");
  EXPECT_EQ(gpt_oss.attention.window[0], 128);
  EXPECT_EQ(gpt_oss.attention.window[1], 0);
  EXPECT_FALSE(gpt_oss.rope.truncate);
  EXPECT_EQ(gpt_oss.router.scoring, RouterConfig::Scoring::softmax_of_chosen);
}

TEST(Config, ExecutableFamiliesAndTheReasonsOfOthers) {
  for (const char* name :
       {"deepseek-v2", "deepseek-v2-lite", "deepseek-v3", "kimi-k2", "moonlight-16b-a3b",
        "qwen3-30b-a3b", "qwen3-235b-a22b", "olmoe-1b-7b", "mixtral-8x7b", "mixtral-8x22b"}) {
    EXPECT_EQ(load_model(name).why_not_executable(), "") << name;
  }
  for (const char* name : {"glm-4.5", "glm-4.5-air", "gpt-oss-20b", "gpt-oss-120b",
                           "instella-moe-16b-a3b", "llama-4-scout", "llama-4-maverick",
                           "longcat-flash", "minimax-m2", "minimax-m2.5", "qwen2-57b-a14b"}) {
    EXPECT_THAT(load_model(name).why_not_executable(), HasSubstr("not executable yet")) << name;
  }
  EXPECT_THAT(load_model("llama-4-scout").why_not_executable(),
              HasSubstr("llama4: input-scaled experts and chunked attention"));
}

TEST(Config, VariantsOfExecutableFamiliesWithoutKernels) {
  const auto why = [](const char* name, const nlohmann::json& changes) {
    nlohmann::json json = builtin_json(name);
    json.update(changes);
    return parse(json).why_not_executable();
  };
  EXPECT_THAT(why("olmoe-1b-7b", {{"hidden_act", "gelu"}}), HasSubstr("gelu"));
  EXPECT_THAT(why("olmoe-1b-7b", {{"attention_bias", true}}), HasSubstr("biases"));
  EXPECT_THAT(why("deepseek-v3", {{"attention_bias", true}}), HasSubstr("biases"));
  EXPECT_THAT(why("mixtral-8x7b", {{"sliding_window", 4096}}), HasSubstr("windows"));
  EXPECT_EQ(why("mixtral-8x7b", {{"sliding_window", 0}}), "");
  EXPECT_EQ(why("mixtral-8x7b", {{"sliding_window", 32768}}), "") << "no shorter than a sequence";
  EXPECT_EQ(why("qwen3-30b-a3b", {{"sliding_window", 4096}}), "") << "use_sliding_window is false";
  EXPECT_THAT(why("qwen3-30b-a3b", {{"sliding_window", 4096}, {"use_sliding_window", true}}),
              HasSubstr("windows"));
  EXPECT_THAT(why("qwen3-30b-a3b", {{"partial_rotary_factor", 0.5}}), HasSubstr("rotated"));
  EXPECT_THAT(why("olmoe-1b-7b", {{"quantization_config", {{"quant_method", "gptq"}}}}),
              HasSubstr("gptq"));
  EXPECT_EQ(why("olmoe-1b-7b", {{"tie_word_embeddings", true}}), "");
}

TEST(Config, FamilyFromArchitectureWhereNoModelTypeIsStated) {
  nlohmann::json json = builtin_json("mixtral-8x7b");
  json.erase("model_type");
  EXPECT_EQ(parse(json).family, "mixtral");
  json["architectures"] = {"GPT2LMHeadModel"};
  EXPECT_THAT(parse_error(json), AllOf(HasSubstr("architectures"), HasSubstr("deepseek_v3")));
  json.erase("architectures");
  EXPECT_THAT(parse_error(json), HasSubstr("test.json: model_type"));
}

TEST(Config, KimiIsReadAsDeepseekV3) {
  const ModelConfig kimi = load_model("kimi-k2");
  EXPECT_EQ(kimi.family, "deepseek_v3");
  EXPECT_EQ(kimi.model_type, "kimi_k2");
  EXPECT_EQ(load_model("instella-moe-16b-a3b").family, "instella_moe");
}

TEST(Config, DenseLayersAreWhereTheFileSays) {
  nlohmann::json json = builtin_json("qwen3-30b-a3b");
  json["num_hidden_layers"] = 6;
  json["mlp_only_layers"] = {3};
  json["decoder_sparse_step"] = 2;
  std::vector<bool> routed;
  for (const LayerKind& layer : parse(json).layers) routed.push_back(layer.routed);
  EXPECT_EQ(routed, (std::vector<bool>{false, true, false, false, false, true}));
  EXPECT_EQ(parse(json).mlp.dense_width, 6144);
  json.erase("intermediate_size");
  EXPECT_THAT(parse_error(json), HasSubstr("intermediate_size"));
  const ModelConfig maverick = load_model("llama-4-maverick");
  EXPECT_TRUE(maverick.layers[0].dense());
  EXPECT_TRUE(maverick.layers[1].routed);
}

TEST(Config, MoreDenseLayersThanLayersIsADenseModel) {
  nlohmann::json json = builtin_json("deepseek-v3");
  json["num_hidden_layers"] = 2;
  EXPECT_EQ(parse(json).moe_layer_count(), 0);
}

TEST(Config, TestCheckpointsAreRead) {
  const std::filesystem::path folder = std::filesystem::path(FARSKIP_SOURCE_DIR) / "tests/fixtures";
  for (const auto& [name, layers, dense] :
       {std::tuple("deepseek_v2", 4, 1), std::tuple("deepseek_v2_full", 4, 1),
        std::tuple("deepseek_v3", 4, 1), std::tuple("deepseek_v3_lite", 4, 1),
        std::tuple("qwen3_moe", 4, 1), std::tuple("olmoe", 3, 0), std::tuple("mixtral", 3, 0),
        std::tuple("llama4", 4, 2)}) {
    SCOPED_TRACE(name);
    const ModelConfig model = read_model_config(folder / name);
    EXPECT_EQ(model.name, name);
    EXPECT_EQ(model.layer_count(), layers);
    EXPECT_EQ(model.layer_count() - model.moe_layer_count(), dense);
    EXPECT_EQ(model.norm_eps, 1e-3);
    EXPECT_EQ(model.checkpoint_dtype, "float32");
    EXPECT_EQ(model.executable(), std::string(name) != "llama4");
  }
  const ModelConfig full = read_model_config(folder / "deepseek_v2_full");
  EXPECT_EQ(full.router.kept_groups, 2);
  EXPECT_EQ(full.rope.beta_fast, 4.0);
  EXPECT_EQ(full.attention.qk_head_dim(), 48);
  EXPECT_EQ(read_model_config(folder / "olmoe").attention.clip_qkv, 2.5);
}

TEST(Config, CutLayersKeepsTheFirst) {
  const ModelConfig whole = load_model("gpt-oss-20b");
  const ModelConfig cut = cut_layers(whole, 3);
  EXPECT_EQ(cut.layer_count(), 3);
  EXPECT_EQ(cut.attention.window, (std::vector<int64_t>{128, 0, 128}));
  EXPECT_THROW(cut_layers(whole, 0), ConfigError);
  EXPECT_THROW(cut_layers(whole, 25), ConfigError);
}

TEST(Config, ReadsAFileOrItsFolderAndNamesTheModelByIt) {
  const std::filesystem::path folder =
      std::filesystem::path(::testing::TempDir()) / "farskip-config-test" / "my-model";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << builtin_json("olmoe-1b-7b").dump();
  EXPECT_EQ(read_model_config(folder).name, "my-model");
  EXPECT_EQ(read_model_config(folder / "config.json").name, "my-model");
  EXPECT_EQ(load_model(folder.string()).family, "olmoe");
  std::ofstream(folder / "other.json") << "[1, 2]";
  const auto read_other = [&] { read_model_config(folder / "other.json"); };
  EXPECT_THAT(config_error(read_other), AllOf(HasSubstr("other.json"), HasSubstr("an object")));
  EXPECT_THROW(read_model_config(folder / "absent.json"), FileError);
  std::filesystem::remove_all(folder.parent_path());
}

TEST(Builtin, NamesInAnyCaseAndCloseOnesInTheError) {
  EXPECT_EQ(load_model("DeepSeek-V3").name, "deepseek-v3");
  const auto hint = [](const char* name) { return config_error([&] { load_model(name); }); };
  EXPECT_THAT(hint("deepseek-v4"), AllOf(HasSubstr("deepseek-v3"), Not(HasSubstr("olmoe"))));
  EXPECT_THAT(hint("deepseek-ai/DeepSeek-V3"), HasSubstr("deepseek-v3"));
  EXPECT_THAT(hint("zzzzzzzzzzzzzzzzzzzzzzz"), HasSubstr("mixtral-8x7b"));
  EXPECT_NE(hint(""), "");
}

}  // namespace
}  // namespace farskip
