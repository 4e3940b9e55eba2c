#include <string>

#include "farskip/model/common_fields.h"
#include "farskip/model/family.h"

namespace farskip {
namespace {

// A layer is dense if listed in mlp_only_layers or left out by decoder_sparse_step.
std::vector<bool> routed_by_step(const Fields& fields, const ModelConfig& model) {
  const int64_t step = fields.integer_or("decoder_sparse_step", 1, 1, max_layers);
  std::vector<bool> routed(model.layers.size());
  for (int64_t i = 0; i < model.layer_count(); ++i) routed[i] = (i + 1) % step == 0;
  for (const int64_t i : fields.integers_or_none("mlp_only_layers", 0, model.layer_count() - 1)) {
    routed[i] = false;
  }
  return routed;
}

// Softmax over all experts, then the best; normalised only where norm_topk_prob says so.
void read_router(const Fields& fields, ModelConfig& model) {
  const std::string_view key = fields.first_of({"num_experts", "num_local_experts"});
  read_experts(fields, model, key);
  if (fields.has("num_local_experts") &&
      fields.integer("num_local_experts", 1, max_experts) != model.router.experts) {
    fields.fail("num_local_experts", "contradicts num_experts",
                std::to_string(model.router.experts));
  }
  model.router.normalize = fields.flag_or("norm_topk_prob", false);
  model.mlp.expert_width = fields.integer("moe_intermediate_size", 1, max_width);
}

// Which layers slide, where use_sliding_window is on: as layer_types says, else from
// max_window_layers on.
std::vector<bool> sliding_layers(const Fields& fields, const ModelConfig& model) {
  std::vector<bool> slides(model.layers.size(), false);
  const std::vector<std::string> types = fields.texts_or_none("layer_types");
  if (!types.empty() && types.size() != slides.size()) {
    fields.fail("layer_types", "wrong length", std::to_string(slides.size()) + " entries");
  }
  const int64_t first = fields.integer_or("max_window_layers", 28, 0, max_layers);
  for (int64_t i = 0; i < model.layer_count(); ++i) {
    slides[i] = types.empty() ? i >= first : types[i] == "sliding_attention";
  }
  return slides;
}

}  // namespace

void read_qwen2_moe(const Fields& fields, ModelConfig& model) {
  read_shape(fields, model, 1e-6);
  read_grouped_query(fields, model);
  read_rope(fields, model, {});
  model.attention.qkv_bias = fields.flag_or("qkv_bias", true);
  if (fields.flag_or("use_sliding_window", false)) {
    read_window(fields, model, sliding_layers(fields, model));
  }
  read_router(fields, model);
  model.mlp.shared_width = fields.integer("shared_expert_intermediate_size", 1, max_width);
  model.mlp.shared_gate = true;
  set_layers(fields, model, routed_by_step(fields, model), "intermediate_size");
}

void read_qwen3_moe(const Fields& fields, ModelConfig& model) {
  read_shape(fields, model, 1e-6);
  read_grouped_query(fields, model);
  read_rope(fields, model, {});
  AttentionConfig& attention = model.attention;
  attention.qk_norm = AttentionConfig::QkNorm::per_head;
  attention.qkv_bias = attention.output_bias = fields.flag_or("attention_bias", false);
  if (fields.flag_or("use_sliding_window", false)) {
    read_window(fields, model, std::vector<bool>(model.layers.size(), true));
  }
  read_router(fields, model);
  set_layers(fields, model, routed_by_step(fields, model), "intermediate_size");
}

}  // namespace farskip
