#include <limits>

#include "farskip/model/common_fields.h"
#include "farskip/model/family.h"

namespace farskip {
namespace {

// Sigmoid scores with a bias in the choice only, as in deepseek_v3.
void set_sigmoid_router(RouterConfig& router) {
  router.scoring = RouterConfig::Scoring::sigmoid;
  router.correction_bias = true;
  router.group_score = RouterConfig::GroupScore::sum_of_best_two;
  router.masked_score = -std::numeric_limits<double>::infinity();
}

}  // namespace

void read_glm4_moe(const Fields& fields, ModelConfig& model) {
  read_shape(fields, model, 1e-5);
  read_grouped_query(fields, model);
  read_rope(fields, model, {.partial = 0.5});
  AttentionConfig& attention = model.attention;
  attention.qkv_bias = fields.flag_or("attention_bias", false);  // o has none, whatever it says
  if (fields.flag_or("use_qk_norm", false)) attention.qk_norm = AttentionConfig::QkNorm::per_head;
  RouterConfig& router = model.router;
  set_sigmoid_router(router);
  router.fp32 = true;
  router.normalize = fields.flag_or("norm_topk_prob", true);
  router.normalize_epsilon = 1e-20;
  router.scale = fields.number_or("routed_scaling_factor", 1.0, 1e-6, 1e6);
  read_experts(fields, model, "n_routed_experts");
  read_groups(fields, model, 1, 1);
  model.mlp.expert_width = fields.integer("moe_intermediate_size", 1, max_width);
  const int64_t shared = fields.integer_or("n_shared_experts", 0, 0, max_experts);
  model.mlp.shared_width = shared * model.mlp.expert_width;
  set_layers(fields, model, routed_after_dense(fields, model), "intermediate_size");
}

void read_minimax_m2(const Fields& fields, ModelConfig& model) {
  read_shape(fields, model, 1e-6);
  read_grouped_query(fields, model);
  read_rope(fields, model, {.theta = 5e6});
  if (fields.flag_or("use_qk_norm", true)) {
    model.attention.qk_norm = AttentionConfig::QkNorm::all_heads;
  }
  set_sigmoid_router(model.router);
  model.router.correction_bias = fields.flag_or("use_routing_bias", true);
  model.router.normalize = true;
  read_experts(fields, model, "num_local_experts");
  model.mlp.expert_width = fields.integer("intermediate_size", 1, max_width);
  model.mlp.shared_width = fields.integer_or("shared_intermediate_size", 0, 0, max_width);
  set_layers(fields, model, std::vector<bool>(model.layers.size(), true), "intermediate_size");
}

}  // namespace farskip
