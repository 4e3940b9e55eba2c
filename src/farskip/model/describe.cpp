#include "farskip/model/describe.h"

#include <algorithm>

#include "farskip/base/format.h"
#include "farskip/model/parameters.h"

namespace farskip {
namespace {

std::string number(int64_t value) { return format_integer(value); }

std::string plural(int64_t count, const std::string& noun) {
  return number(count) + " " + noun + (count == 1 ? "" : "s");
}

// Without the zeros that fixed decimals leave: 2.500 -> 2.5, 10000.000 -> 10000.
std::string shortest(double value) {
  std::string text = format_fixed(value, 3);
  while (text.ends_with('0')) text.pop_back();
  if (text.ends_with('.')) text.pop_back();
  return text;
}

std::string layers_text(const ModelConfig& config) {
  const int moe = config.moe_layer_count();
  const int dense = config.layer_count() - moe;
  return number(config.layer_count()) + " (" + number(dense) + " dense + " + number(moe) + " MoE)";
}

std::string qk_norm_text(AttentionConfig::QkNorm norm) {
  switch (norm) {
    case AttentionConfig::QkNorm::none:
      return "";
    case AttentionConfig::QkNorm::per_head:
      return ", q/k norm per head";
    case AttentionConfig::QkNorm::all_heads:
      return ", q/k norm over all heads";
    case AttentionConfig::QkNorm::l2_after_rope:
      return ", q/k L2 norm after rope";
  }
  return "";
}

std::string attention_text(const AttentionConfig& attention) {
  std::string text;
  if (attention.kind == AttentionConfig::Kind::latent) {
    text = "latent (MLA), " + plural(attention.heads, "head") + " of " +
           number(attention.qk_nope_head_dim) + " + " + number(attention.qk_rope_head_dim) +
           " (v " + number(attention.v_head_dim) + "), kv rank " + number(attention.kv_lora_rank) +
           (attention.q_lora_rank > 0 ? ", q rank " + number(attention.q_lora_rank) : "");
  } else {
    const bool grouped = attention.kv_heads != attention.heads;
    text = (grouped ? "grouped query, " : "multi-head, ") + plural(attention.heads, "head") +
           " of " + number(attention.head_dim) +
           (grouped ? ", " + plural(attention.kv_heads, "k/v head") : "");
  }
  text += qk_norm_text(attention.qk_norm);
  if (attention.qkv_bias || attention.output_bias) text += ", with bias";
  if (attention.output_gate) text += ", gated output";
  if (attention.sinks) text += ", sinks";
  if (attention.clip_qkv > 0) text += ", q/k/v clipped at " + shortest(attention.clip_qkv);
  if (attention.per_layer > 1) text += ", " + number(attention.per_layer) + " blocks a layer";
  return text;
}

std::string window_text(const AttentionConfig& attention) {
  int64_t longest = 0, layers = 0;
  for (const int64_t window : attention.window) {
    longest = std::max(longest, window);
    layers += window > 0 ? 1 : 0;
  }
  return layers == 0 ? "" : number(longest) + " keys in " + plural(layers, "layer");
}

std::string router_text(const RouterConfig& router) {
  std::string text = "top " + number(router.top_k) + " of " + number(router.experts);
  if (router.zero_experts > 0) text += " + " + plural(router.zero_experts, "zero expert");
  if (router.groups > 1) {
    text += ", within " + number(router.kept_groups) + " of " + number(router.groups) + " groups";
  }
  text += router.scoring == RouterConfig::Scoring::sigmoid   ? ", sigmoid"
          : router.scoring == RouterConfig::Scoring::softmax ? ", softmax"
                                                             : ", softmax of the chosen";
  if (router.correction_bias) text += ", correction bias";
  if (router.normalize) text += ", normalised";
  if (router.scale != 1.0) text += ", x " + shortest(router.scale);
  return text;
}

std::string shared_text(const MlpConfig& mlp) {
  if (mlp.shared_width == 0) return "none";
  std::string text = "width " + number(mlp.shared_width);
  if (mlp.shared_width % mlp.expert_width == 0 && mlp.shared_width > mlp.expert_width) {
    text +=
        " (" + number(mlp.shared_width / mlp.expert_width) + " x " + number(mlp.expert_width) + ")";
  }
  return text + (mlp.shared_gate ? ", gated" : "");
}

std::string rope_text(const RopeConfig& rope) {
  std::string text = "theta " + shortest(rope.theta) + ", " + number(rope.dims) + " dimensions" +
                     (rope.interleaved ? ", interleaved pairs" : "");
  const char* names[] = {"", ", linear x ", ", yarn x ", ", llama3 x "};
  if (rope.scaling != RopeConfig::Scaling::none) {
    text += names[static_cast<int>(rope.scaling)] + shortest(rope.factor);
  }
  if (rope.original_max_position > 0) {
    text += " beyond " + number(rope.original_max_position) + " positions";
  }
  return text;
}

std::string dtype_text(const ModelConfig& config) {
  std::string text = config.checkpoint_dtype.empty() ? "not stated" : config.checkpoint_dtype;
  if (config.quantization.empty()) return text;
  text += ", weights in " + config.quantization;
  if (config.fp8_block > 0) text += ", one scale per block of " + number(config.fp8_block);
  return text;
}

std::string contribution_text(const ModelConfig& config, const LayerKind& kind) {
  std::string text = "attention";
  if (kind.dense()) return text + ", dense MLP";
  if (config.mlp.dense_per_layer > 0) {
    text += ", " + plural(config.mlp.dense_per_layer, "dense MLP");
  }
  if (config.mlp.shared_width > 0) text += ", shared experts";
  return text + ", routed experts";
}

}  // namespace

std::vector<DescriptionRow> describe_model(const ModelConfig& config) {
  const ParameterCount count = count_parameters(config);
  const bool dense = config.mlp.dense_width > 0;
  const std::string why = config.why_not_executable();
  const std::string type = config.model_type == config.family || config.model_type.empty()
                               ? ""
                               : " (" + config.model_type + ")";
  std::vector<DescriptionRow> rows = {
      {"model", config.name},
      {"family", config.family + type},
      {"layers", layers_text(config)},
      {"hidden", number(config.hidden)},
      {"vocabulary", number(config.vocabulary) + (config.tied_embeddings ? ", tied" : "")},
      {"attention", attention_text(config.attention)},
      {"window", window_text(config.attention)},
      {"experts", number(config.router.experts) + " of width " + number(config.mlp.expert_width)},
      {"router", router_text(config.router)},
      {"shared experts", shared_text(config.mlp)},
      {"dense MLP", dense ? "width " + number(config.mlp.dense_width) : ""},
      {"rope", rope_text(config.rope)},
      {"dtype", dtype_text(config)},
      {"parameters", format_count(count.total, 2)},
      {"active per token", format_count(count.active, 2) + ", without the embedding (" +
                               format_count(count.embedding, 2) + ")"},
      {"executable", why.empty() ? "yes" : "no: " + why},
  };
  std::erase_if(rows, [](const DescriptionRow& row) { return row.value.empty(); });
  return rows;
}

std::vector<DescriptionRow> describe_contributions(const ModelConfig& config) {
  std::vector<DescriptionRow> rows;
  const int count = config.layer_count();
  for (int first = 0, end = 0; first < count; first = end) {
    while (end < count && config.layers[end] == config.layers[first]) ++end;
    const std::string label = end - first == 1 ? "layer " + number(end)
                                               : "layers " + number(first + 1) + "-" + number(end);
    rows.push_back({label, contribution_text(config, config.layers[first])});
  }
  return rows;
}

std::vector<DescriptionRow> describe_weights(const ModelConfig& config, int expert_parallel,
                                             int tensor_parallel, double bytes_per_element) {
  const WeightBytes bytes =
      weight_bytes_per_rank(config, expert_parallel, tensor_parallel, bytes_per_element);
  return {
      {"ranks", "experts over " + number(expert_parallel) + ", tensors over " +
                    number(tensor_parallel) + ", " + shortest(bytes_per_element) +
                    " bytes per weight"},
      {"weights per rank", format_bytes(bytes.total())},
      {"of them routed experts", format_bytes(bytes.experts)},
      {"of them everything else", format_bytes(bytes.other)},
  };
}

}  // namespace farskip
