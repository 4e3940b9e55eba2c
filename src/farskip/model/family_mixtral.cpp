#include "farskip/model/common_fields.h"
#include "farskip/model/family.h"

namespace farskip {

// In both families intermediate_size is the width of one expert, and every layer has experts.

void read_mixtral(const Fields& fields, ModelConfig& model) {
  read_shape(fields, model, 1e-5);
  read_grouped_query(fields, model);
  read_rope(fields, model, {.theta = 1e6});
  const std::vector<bool> all(model.layers.size(), true);
  read_window(fields, model, all);
  read_experts(fields, model, "num_local_experts");
  model.router.normalize = true;
  model.mlp.expert_width = fields.integer("intermediate_size", 1, max_width);
  set_layers(fields, model, all, "intermediate_size");
}

void read_olmoe(const Fields& fields, ModelConfig& model) {
  read_shape(fields, model, 1e-5);
  read_grouped_query(fields, model);
  read_rope(fields, model, {});
  AttentionConfig& attention = model.attention;
  attention.qk_norm = AttentionConfig::QkNorm::all_heads;
  attention.clip_qkv = fields.number_or("clip_qkv", 0.0, 1e-6, 1e6);
  attention.qkv_bias = attention.output_bias = fields.flag_or("attention_bias", false);
  read_experts(fields, model, fields.first_of({"num_local_experts", "num_experts"}));
  model.router.normalize = fields.flag_or("norm_topk_prob", false);
  model.mlp.expert_width = fields.integer("intermediate_size", 1, max_width);
  set_layers(fields, model, std::vector<bool>(model.layers.size(), true), "intermediate_size");
}

}  // namespace farskip
