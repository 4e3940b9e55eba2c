#include <limits>
#include <string>

#include "farskip/model/common_fields.h"
#include "farskip/model/family.h"

namespace farskip {
namespace {

constexpr double max_scale = 1e6;

// Refuses a text field that states another behaviour than the family's own.
void expect_text(const Fields& fields, std::string_view key, std::string_view only) {
  if (fields.has(key) && fields.text(key) != only) {
    fields.fail(key, "not known for this model_type", std::string(only));
  }
}

void read_deepseek_mlp(const Fields& fields, ModelConfig& model) {
  model.mlp.expert_width = fields.integer("moe_intermediate_size", 1, max_width);
  const int64_t shared = fields.integer_or("n_shared_experts", 0, 0, max_experts);
  model.mlp.shared_width = shared * model.mlp.expert_width;
  if (model.mlp.shared_width > max_width) {
    fields.fail("n_shared_experts", "shared experts are too wide together",
                "at most " + std::to_string(max_width) + " columns");
  }
  set_layers(fields, model, routed_after_dense(fields, model), "intermediate_size");
}

void read_deepseek_attention(const Fields& fields, ModelConfig& model) {
  read_latent(fields, model);
  const bool bias = fields.flag_or("attention_bias", false);
  model.attention.qkv_bias = model.attention.output_bias = bias;
  read_rope(fields, model, {.interleaved = fields.flag_or("rope_interleave", true)});
}

}  // namespace

void read_deepseek_v2(const Fields& fields, ModelConfig& model) {
  read_shape(fields, model, 1e-6);
  read_deepseek_attention(fields, model);
  model.rope.interleaved = true;  // rope_interleave is a field of deepseek_v3 only
  expect_text(fields, "scoring_func", "softmax");
  RouterConfig& router = model.router;
  router.fp32 = true;
  router.scale = fields.number_or("routed_scaling_factor", 1.0, 1e-6, max_scale);
  // norm_topk_prob is read by no one: transformers' router for this family ignores it.
  read_experts(fields, model, "n_routed_experts");
  const std::string method = fields.text_or("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    read_groups(fields, model, 1, 1);
  } else if (method != "greedy") {
    fields.fail("topk_method", "unknown choice of experts", "greedy or group_limited_greedy");
  }
  read_deepseek_mlp(fields, model);
}

void read_deepseek_v3(const Fields& fields, ModelConfig& model) {
  read_shape(fields, model, 1e-6);
  read_deepseek_attention(fields, model);
  model.attention.output_gate = fields.flag_or("gated_attention", false);
  if (model.attention.output_gate) model.family = "instella_moe";
  expect_text(fields, "scoring_func", "sigmoid");
  expect_text(fields, "topk_method", "noaux_tc");
  RouterConfig& router = model.router;
  router.scoring = RouterConfig::Scoring::sigmoid;
  router.correction_bias = true;
  router.fp32 = true;
  router.group_score = RouterConfig::GroupScore::sum_of_best_two;
  router.masked_score = -std::numeric_limits<double>::infinity();
  router.normalize = fields.flag_or("norm_topk_prob", true);
  router.normalize_epsilon = 1e-20;
  router.scale = fields.number_or("routed_scaling_factor", 2.5, 1e-6, max_scale);
  read_experts(fields, model, "n_routed_experts");
  read_groups(fields, model, 8, 4);
  read_deepseek_mlp(fields, model);
}

void read_longcat_flash(const Fields& fields, ModelConfig& model) {
  read_shape(fields, model, 1e-5, fields.first_of({"num_hidden_layers", "num_layers"}));
  read_latent(fields, model);
  read_rope(fields, model, {.theta = 1e7, .interleaved = true});
  model.attention.per_layer = 2;
  const bool bias = fields.flag_or("attention_bias", false);
  model.attention.qkv_bias = model.attention.output_bias = bias;
  RouterConfig& router = model.router;
  router.correction_bias = true;
  router.fp32 = true;
  router.scale = fields.number_or("routed_scaling_factor", 6.0, 1e-6, max_scale);
  router.zero_experts = static_cast<int>(fields.integer_or("zero_expert_num", 0, 0, max_experts));
  read_experts(fields, model, "n_routed_experts",
               fields.first_of({"num_experts_per_tok", "moe_topk"}));
  model.mlp.expert_width = fields.integer(
      fields.first_of({"moe_intermediate_size", "expert_ffn_hidden_size"}), 1, max_width);
  model.mlp.dense_per_layer = 2;
  const std::string_view dense_width = fields.first_of({"intermediate_size", "ffn_hidden_size"});
  model.mlp.dense_width = fields.integer(dense_width, 1, max_width);
  set_layers(fields, model, std::vector<bool>(model.layers.size(), true), dense_width);
}

}  // namespace farskip
