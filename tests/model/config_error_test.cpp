#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "farskip/model/connectivity.h"
#include "farskip/model/describe.h"
#include "farskip/model/parameters.h"
#include "model_test_support.h"

namespace farskip {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

struct Wrong {
  const char* model;
  const char* field;
  json value;  // discarded: the field is deleted
};

json changed(const Wrong& wrong) {
  json config = builtin_json(wrong.model);
  if (wrong.value.is_discarded()) {
    config.erase(wrong.field);
  } else {
    config[wrong.field] = wrong.value;
  }
  return config;
}

const json absent = json(json::value_t::discarded);

TEST(ConfigErrors, NameFileAndField) {
  const std::vector<Wrong> all = {
      {"mixtral-8x7b", "hidden_size", absent},
      {"mixtral-8x7b", "hidden_size", nullptr},
      {"mixtral-8x7b", "hidden_size", 4096.0},
      {"mixtral-8x7b", "hidden_size", "4096"},
      {"mixtral-8x7b", "hidden_size", 0},
      {"mixtral-8x7b", "hidden_size", -1},
      {"mixtral-8x7b", "hidden_size", 9223372036854775807},
      {"mixtral-8x7b", "hidden_size", 18446744073709551615ull},
      {"mixtral-8x7b", "hidden_size", 1e300},
      {"mixtral-8x7b", "vocab_size", json::array({1})},
      {"mixtral-8x7b", "num_hidden_layers", 100001},
      {"mixtral-8x7b", "num_hidden_layers", true},
      {"mixtral-8x7b", "num_attention_heads", 31},
      {"mixtral-8x7b", "num_key_value_heads", 5},
      {"mixtral-8x7b", "num_experts_per_tok", 9},
      {"mixtral-8x7b", "num_experts_per_tok", 0},
      {"mixtral-8x7b", "num_local_experts", absent},
      {"mixtral-8x7b", "rms_norm_eps", 0},
      {"mixtral-8x7b", "rms_norm_eps", -1e-6},
      {"mixtral-8x7b", "rope_theta", "big"},
      {"mixtral-8x7b", "rope_theta", 0},
      {"mixtral-8x7b", "sliding_window", -4},
      {"mixtral-8x7b", "tie_word_embeddings", 1},
      {"mixtral-8x7b", "quantization_config", 3},
      {"mixtral-8x7b", "rope_scaling", json::array()},
      {"mixtral-8x7b", "model_type", "gpt2"},
      {"mixtral-8x7b", "model_type", 7},
      {"deepseek-v3", "n_group", 7},
      {"deepseek-v3", "topk_group", 9},
      {"deepseek-v3", "n_group", 256},
      {"deepseek-v3", "scoring_func", "softmax"},
      {"deepseek-v3", "topk_method", "greedy"},
      {"deepseek-v3", "num_key_value_heads", 8},
      {"deepseek-v3", "kv_lora_rank", absent},
      {"deepseek-v3", "qk_rope_head_dim", 63},
      {"deepseek-v3", "first_k_dense_replace", -1},
      {"deepseek-v3", "moe_layer_freq", 0},
      {"deepseek-v3", "intermediate_size", absent},
      {"deepseek-v3", "n_shared_experts", 1000000},
      {"deepseek-v2", "topk_method", "best"},
      {"deepseek-v2", "scoring_func", "sigmoid"},
      {"qwen3-30b-a3b", "mlp_only_layers", 4},
      {"qwen3-30b-a3b", "mlp_only_layers", json::array({48})},
      {"qwen3-30b-a3b", "mlp_only_layers", json::array({-1})},
      {"qwen3-30b-a3b", "mlp_only_layers", json::array({"1"})},
      {"qwen3-30b-a3b", "decoder_sparse_step", 0},
      {"qwen3-30b-a3b", "num_local_experts", 64},
      {"qwen3-30b-a3b", "head_dim", 127},
      {"olmoe-1b-7b", "clip_qkv", -1},
      {"gpt-oss-20b", "layer_types", json::array({"full_attention"})},
      {"llama-4-scout", "text_config", 5},
  };
  for (const Wrong& wrong : all) {
    const std::string error = parse_error(changed(wrong));
    EXPECT_THAT(error, AllOf(HasSubstr("test.json"), HasSubstr(wrong.field)))
        << wrong.model << " " << wrong.field << " = " << wrong.value.dump();
  }
}

TEST(ConfigErrors, KeptGroupsMustHoldEnoughExperts) {
  json config = builtin_json("deepseek-v3");
  config["topk_group"] = 1;
  config["num_experts_per_tok"] = 33;
  EXPECT_THAT(parse_error(config), HasSubstr("topk_group"));
  config["num_experts_per_tok"] = 32;
  EXPECT_EQ(parse_error(config), "");
}

TEST(ConfigErrors, RopeScalingThatContradictsItselfOrIsUnknown) {
  const auto error = [](const json& scaling) {
    json config = builtin_json("olmoe-1b-7b");
    config["rope_scaling"] = scaling;
    return parse_error(config);
  };
  EXPECT_THAT(error({{"type", "longrope"}}),
              AllOf(HasSubstr("rope_scaling.type"), HasSubstr("yarn")));
  EXPECT_THAT(error({{"type", "yarn"}, {"rope_type", "linear"}}), HasSubstr("rope_scaling.type"));
  EXPECT_THAT(error({{"type", "yarn"}, {"factor", 0.5}}), HasSubstr("rope_scaling.factor"));
  EXPECT_THAT(error({{"type", "linear"}}), HasSubstr("rope_scaling.factor"));
  EXPECT_THAT(error({{"rope_type", "llama3"}, {"factor", 8}}), HasSubstr("low_freq_factor"));
  EXPECT_EQ(error({{"type", "linear"}, {"factor", 4}}), "");
}

TEST(ConfigErrors, NestedFieldsAreNamedWithTheirPath) {
  json config = builtin_json("llama-4-scout");
  config["text_config"].erase("hidden_size");
  EXPECT_THAT(parse_error(config), HasSubstr("test.json: text_config.hidden_size"));
  json fp8 = builtin_json("deepseek-v3");
  fp8["quantization_config"]["weight_block_size"] = {128, 64};
  EXPECT_THAT(parse_error(fp8), HasSubstr("quantization_config.weight_block_size"));
}

TEST(ConfigErrors, TextThatIsNoJsonObject) {
  const auto read = [](const std::string& text) { parse_model_config(text, "t", "t"); };
  for (const char* text : {"[]", "null", "3", "\"config\""}) EXPECT_THROW(read(text), ConfigError);
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("{\"a\": NaN}"), std::string("{\"a\": 1e999}"),
        std::string(100000, '['), std::string("\xff\xfe{}", 4)}) {
    EXPECT_THROW(read(text), FileError) << text.substr(0, 20);
  }
}

// Changes one field, at any depth, in a way that a broken or hostile file might.
class Mutator {
 public:
  explicit Mutator(uint32_t seed) : random_(seed) {}

  void mutate(json& config) {
    json* object = &config;
    while (true) {
      auto field = object->begin();
      std::advance(field, below(object->size()));
      if (field->is_object() && !field->empty() && below(4) != 0) {
        object = &*field;
        continue;
      }
      if (below(4) == 0) {
        object->erase(field);
      } else {
        *field = replacement(*field);
      }
      return;
    }
  }

  size_t below(size_t end) { return random_() % end; }

 private:
  json replacement(const json& old) {
    static const json odd[] = {nullptr,
                               true,
                               false,
                               "",
                               "text",
                               0,
                               -1,
                               1,
                               2,
                               3,
                               7,
                               64,
                               0.5,
                               -0.0,
                               1e308,
                               -1e-308,
                               2147483647,
                               2147483648,
                               -2147483649,
                               9223372036854775807,
                               18446744073709551615ull,
                               json::array(),
                               json::object(),
                               json::array({1, "a", nullptr, -5}),
                               json::array({json::object()}),
                               json(std::string(1000, 'x'))};
    if (old.is_number_integer() && below(2) == 0) {
      const auto value = static_cast<uint64_t>(old.get<int64_t>());  // wraps where it overflows
      const uint64_t changes[] = {value + 1, value - 1, value * 2,
                                  value / 2, ~value,    value * 1000003};
      return static_cast<int64_t>(changes[below(std::size(changes))]);
    }
    return odd[below(std::size(odd))];
  }

  std::mt19937 random_;
};

TEST(ConfigFuzz, MutatedConfigsParseOrGiveConfigErrors) {
  Mutator mutator(20240607);
  int parsed = 0, refused = 0;
  for (int round = 0; round < 4000; ++round) {
    const auto models = builtin_models();
    json config = json::parse(models[mutator.below(models.size())].json);
    const size_t count = 1 + mutator.below(3);
    for (size_t i = 0; i < count && !config.empty(); ++i) mutator.mutate(config);
    SCOPED_TRACE(config.dump().substr(0, 4000));
    try {
      const ModelConfig model = parse(config);
      ++parsed;
      const ParameterCount parameters = count_parameters(model);
      EXPECT_TRUE(std::isfinite(parameters.total) && parameters.total >= parameters.active / 2);
      EXPECT_TRUE(std::isfinite(model.softmax_scale()) && model.softmax_scale() > 0);
      EXPECT_EQ(static_cast<int>(model.attention.window.size()), model.layer_count());
      EXPECT_FALSE(describe_model(model).empty());
      EXPECT_FALSE(describe_contributions(model).empty());
      Connectivity::preset("farskip", model.layers);
    } catch (const ConfigError& error) {
      ++refused;
      EXPECT_THAT(error.what(), HasSubstr("test.json"));
    }
  }
  EXPECT_GT(parsed, 400);
  EXPECT_GT(refused, 400);
}

}  // namespace
}  // namespace farskip
