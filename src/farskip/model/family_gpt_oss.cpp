#include <string>

#include "farskip/model/common_fields.h"
#include "farskip/model/family.h"

namespace farskip {
namespace {

// Every other layer slides, the first one too, unless layer_types says which.
std::vector<bool> sliding_layers(const Fields& fields, const ModelConfig& model) {
  std::vector<bool> slides(model.layers.size());
  for (size_t i = 0; i < slides.size(); ++i) slides[i] = i % 2 == 0;
  const std::vector<std::string> types = fields.texts_or_none("layer_types");
  if (types.empty()) return slides;
  if (types.size() != slides.size()) {
    fields.fail("layer_types", "wrong length", std::to_string(slides.size()) + " entries");
  }
  for (size_t i = 0; i < slides.size(); ++i) {
    slides[i] = types[i] == "sliding_attention";
    if (!slides[i] && types[i] != "full_attention") {
      fields.fail("layer_types", "unknown attention", "sliding_attention or full_attention");
    }
  }
  return slides;
}

}  // namespace

void read_gpt_oss(const Fields& fields, ModelConfig& model) {
  read_shape(fields, model, 1e-5);
  read_grouped_query(fields, model);
  read_rope(fields, model, {.theta = 150000.0});
  AttentionConfig& attention = model.attention;
  attention.qkv_bias = attention.output_bias = fields.flag_or("attention_bias", true);
  attention.sinks = true;
  read_window(fields, model, sliding_layers(fields, model));
  model.router.scoring = RouterConfig::Scoring::softmax_of_chosen;
  model.router.logit_bias = true;
  read_experts(fields, model, "num_local_experts",
               fields.first_of({"experts_per_token", "num_experts_per_tok"}));
  model.mlp.expert_width = fields.integer("intermediate_size", 1, max_width);
  model.mlp.expert_bias = true;
  set_layers(fields, model, std::vector<bool>(model.layers.size(), true), "intermediate_size");
}

}  // namespace farskip
