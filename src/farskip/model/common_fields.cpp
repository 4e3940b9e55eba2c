#include "farskip/model/common_fields.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

namespace farskip {
namespace {

void read_quantization(const Fields& fields, ModelConfig& model) {
  if (!fields.has("quantization_config")) return;
  const Fields quantization = fields.object("quantization_config");
  model.quantization = quantization.text("quant_method");
  if (model.quantization != "fp8" || !quantization.has("weight_block_size")) return;
  const auto block = quantization.integers_or_none("weight_block_size", 1, 1 << 16);
  if (block.size() != 2 || block[0] != block[1]) {
    quantization.fail("weight_block_size", "unknown block shape", "two equal positive integers");
  }
  model.fp8_block = block[0];
}

}  // namespace

void read_shape(const Fields& fields, ModelConfig& model, double norm_eps,
                std::string_view layers_key) {
  const int64_t layers = fields.integer(layers_key, 1, max_layers);
  model.hidden = fields.integer("hidden_size", 1, max_width);
  model.vocabulary = fields.integer("vocab_size", 1, max_vocabulary);
  model.norm_eps = fields.number_or("rms_norm_eps", norm_eps, 1e-30, 1.0);
  model.tied_embeddings = fields.flag_or("tie_word_embeddings", false);
  model.checkpoint_dtype = fields.text_or(fields.first_of({"dtype", "torch_dtype"}), "");
  model.activation = fields.text_or("hidden_act", "silu");
  if (model.activation == "swish") model.activation = "silu";
  read_quantization(fields, model);
  model.layers.assign(layers, LayerKind{.routed = false, .shared = true});
  model.attention.window.assign(layers, 0);
}

void read_grouped_query(const Fields& fields, ModelConfig& model) {
  AttentionConfig& attention = model.attention;
  attention.kind = AttentionConfig::Kind::grouped_query;
  attention.heads = static_cast<int>(fields.integer("num_attention_heads", 1, max_heads));
  attention.kv_heads =
      static_cast<int>(fields.integer_or("num_key_value_heads", attention.heads, 1, max_heads));
  if (attention.heads % attention.kv_heads != 0) {
    fields.fail("num_key_value_heads", "contradicts num_attention_heads",
                "a divisor of " + std::to_string(attention.heads));
  }
  if (fields.has("head_dim")) {
    attention.head_dim = static_cast<int>(fields.integer("head_dim", 1, max_head_dim));
    return;
  }
  if (model.hidden % attention.heads != 0 || model.hidden / attention.heads > max_head_dim) {
    fields.fail("num_attention_heads", "contradicts hidden_size, and head_dim is not stated",
                "a divisor of " + std::to_string(model.hidden) + " giving heads of at most " +
                    std::to_string(max_head_dim));
  }
  attention.head_dim = static_cast<int>(model.hidden / attention.heads);
}

void read_latent(const Fields& fields, ModelConfig& model) {
  AttentionConfig& attention = model.attention;
  attention.kind = AttentionConfig::Kind::latent;
  attention.heads = static_cast<int>(fields.integer("num_attention_heads", 1, max_heads));
  attention.kv_heads = attention.heads;
  if (fields.has("num_key_value_heads") &&
      fields.integer("num_key_value_heads", 1, max_heads) != attention.heads) {
    fields.fail("num_key_value_heads", "contradicts latent attention, where every head has its k",
                std::to_string(attention.heads) + " as num_attention_heads");
  }
  const auto rank = [&](std::string_view key) {
    return static_cast<int>(fields.integer(key, 1, max_width));
  };
  const auto width = [&](std::string_view key) {
    return static_cast<int>(fields.integer(key, 1, max_head_dim));
  };
  attention.q_lora_rank = fields.has("q_lora_rank") ? rank("q_lora_rank") : 0;
  attention.kv_lora_rank = rank("kv_lora_rank");
  attention.qk_nope_head_dim = width("qk_nope_head_dim");
  attention.qk_rope_head_dim = width("qk_rope_head_dim");
  attention.v_head_dim = width("v_head_dim");
}

void read_experts(const Fields& fields, ModelConfig& model, std::string_view experts_key,
                  std::string_view top_k_key) {
  RouterConfig& router = model.router;
  router.experts = static_cast<int>(fields.integer(experts_key, 1, max_experts));
  router.top_k = static_cast<int>(fields.integer(top_k_key, 1, max_experts));
  if (router.top_k > router.experts) {
    fields.fail(
        top_k_key, "more choices than experts",
        "at most " + std::to_string(router.experts) + " (" + std::string(experts_key) + ")");
  }
}

void read_groups(const Fields& fields, ModelConfig& model, int default_groups,
                 int default_kept_groups) {
  RouterConfig& router = model.router;
  const auto count = [&](std::string_view key, int fallback) {
    return fields.stated_null(key)
               ? 1
               : static_cast<int>(fields.integer_or(key, fallback, 1, max_experts));
  };
  router.groups = count("n_group", default_groups);
  router.kept_groups = count("topk_group", default_kept_groups);
  if (router.experts % router.groups != 0) {
    fields.fail("n_group", "experts do not divide into groups",
                "a divisor of " + std::to_string(router.experts));
  }
  if (router.kept_groups > router.groups) {
    fields.fail("topk_group", "keeps more groups than there are",
                "at most " + std::to_string(router.groups) + " (n_group)");
  }
  const int in_group = router.experts / router.groups;
  if (router.groups > 1 && in_group < 2 &&
      router.group_score == RouterConfig::GroupScore::sum_of_best_two) {
    fields.fail("n_group", "a group is scored by its two best experts but holds one",
                "at most " + std::to_string(router.experts / 2));
  }
  if (router.kept_groups * in_group < router.top_k) {
    fields.fail("topk_group", "the kept groups hold fewer experts than a token chooses",
                "at least " + std::to_string((router.top_k + in_group - 1) / in_group) +
                    " groups of " + std::to_string(in_group) + " experts");
  }
}

void set_layers(const Fields& fields, ModelConfig& model, const std::vector<bool>& routed,
                std::string_view dense_width_key) {
  const bool shared = model.mlp.shared_width > 0 || model.mlp.dense_per_layer > 0;
  bool any_dense = false;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    model.layers[i] = {.routed = routed[i], .shared = !routed[i] || shared};
    any_dense = any_dense || !routed[i];
  }
  if (any_dense) model.mlp.dense_width = fields.integer(dense_width_key, 1, max_width);
}

std::vector<bool> routed_after_dense(const Fields& fields, const ModelConfig& model) {
  const int64_t dense = fields.integer_or("first_k_dense_replace", 0, 0, max_layers);
  const int64_t step = fields.integer_or("moe_layer_freq", 1, 1, max_layers);
  std::vector<bool> routed(model.layers.size());
  for (int64_t i = 0; i < model.layer_count(); ++i) routed[i] = i >= dense && i % step == 0;
  return routed;
}

void read_window(const Fields& fields, ModelConfig& model, const std::vector<bool>& slides) {
  int64_t window = fields.integer_or("sliding_window", 0, 0, max_positions);
  const int64_t longest =
      fields.integer_or("max_position_embeddings", max_positions, 1, max_positions);
  if (window >= longest) window = 0;
  for (size_t i = 0; i < slides.size(); ++i) {
    if (slides[i]) model.attention.window[i] = window;
  }
}

}  // namespace farskip
