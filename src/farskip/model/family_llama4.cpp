#include "farskip/model/common_fields.h"
#include "farskip/model/family.h"

namespace farskip {

// Chunked attention and the layers without rope are not in ModelConfig: no kernel reads them yet,
// and up to attention_chunk_size tokens they change no cost.
void read_llama4(const Fields& fields, ModelConfig& model) {
  read_shape(fields, model, 1e-5);
  read_grouped_query(fields, model);
  read_rope(fields, model, {.theta = 5e5, .interleaved = true});
  AttentionConfig& attention = model.attention;
  attention.qkv_bias = attention.output_bias = fields.flag_or("attention_bias", false);
  if (fields.flag_or("use_qk_norm", true)) {
    attention.qk_norm = AttentionConfig::QkNorm::l2_after_rope;
  }
  model.router.scoring = RouterConfig::Scoring::sigmoid;
  read_experts(fields, model, "num_local_experts");
  model.mlp.expert_width = fields.integer("intermediate_size", 1, max_width);
  model.mlp.shared_width = model.mlp.expert_width;
  const int64_t step = fields.integer_or("interleave_moe_layer_step", 1, 1, max_layers);
  std::vector<bool> routed(model.layers.size());
  for (int64_t i = 0; i < model.layer_count(); ++i) routed[i] = (i + 1) % step == 0;
  if (fields.has("moe_layers")) {
    routed.assign(routed.size(), false);
    for (const int64_t i : fields.integers_or_none("moe_layers", 0, model.layer_count() - 1)) {
      routed[i] = true;
    }
  }
  set_layers(fields, model, routed, "intermediate_size_mlp");
}

}  // namespace farskip
