#include "farskip/io/naming.h"

#include <charconv>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace farskip {
namespace {

constexpr std::string_view layers_prefix = "model.layers.";

using Names = std::vector<std::string>;

// What stands in a weight, below model.layers.N. where it is of a layer. `*` is the block that
// holds the experts; `?` is q_a_proj, or q_proj where queries are not compressed.
const std::unordered_map<std::string, Names>& source_table() {
  static const std::unordered_map<std::string, Names> table = {
      {"embedding", {"model.embed_tokens.weight"}},
      {"final_norm", {"model.norm.weight"}},
      {"head", {"lm_head.weight"}},
      {"attention_norm", {"input_layernorm.weight"}},
      {"mlp_norm", {"post_attention_layernorm.weight"}},
      {"attention.qkv",
       {"self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"}},
      {"attention.q_norm", {"self_attn.q_norm.weight"}},
      {"attention.k_norm", {"self_attn.k_norm.weight"}},
      {"attention.q_kv_a", {"self_attn.?.weight", "self_attn.kv_a_proj_with_mqa.weight"}},
      {"attention.q_a_norm", {"self_attn.q_a_layernorm.weight"}},
      {"attention.q_b", {"self_attn.q_b_proj.weight"}},
      {"attention.kv_a_norm", {"self_attn.kv_a_layernorm.weight"}},
      {"attention.kv_b", {"self_attn.kv_b_proj.weight"}},
      {"attention.output", {"self_attn.o_proj.weight"}},
      {"router", {"*.gate.weight"}},
      {"router_bias", {"*.gate.e_score_correction_bias"}},
      {"shared.gate_up",
       {"mlp.shared_experts.gate_proj.weight", "mlp.shared_experts.up_proj.weight"}},
      {"shared.down", {"mlp.shared_experts.down_proj.weight"}},
      {"dense.gate_up", {"mlp.gate_proj.weight", "mlp.up_proj.weight"}},
      {"dense.down", {"mlp.down_proj.weight"}}};
  return table;
}

std::string layer_prefix(int layer) {
  return std::string(layers_prefix) + std::to_string(layer - 1) + ".";
}

// The weight's name without its layer.
std::string weight_of(const WeightSpec& spec) {
  return spec.layer == 0 ? spec.name : spec.name.substr(layer_weight_name(spec.layer, "").size());
}

void replace(std::string& text, char mark, const std::string& by) {
  const size_t at = text.find(mark);
  if (at != std::string::npos) text.replace(at, 1, by);
}

}  // namespace

CheckpointNaming::CheckpointNaming(const ModelConfig& config,
                                   std::function<bool(const std::string&)> contains)
    : layers_(config.layer_count()),
      mixtral_(config.family == "mixtral"),
      tied_(config.tied_embeddings),
      compressed_queries_(config.attention.q_lora_rank > 0),
      contains_(std::move(contains)) {}

// Mixtral's block is block_sparse_moe on the hub, and mlp where transformers 5 wrote its own names.
std::string CheckpointNaming::moe_block(int layer) const {
  const bool own_name = contains_(layer_prefix(layer) + "mlp.gate.weight");
  return mixtral_ && !own_name ? "block_sparse_moe" : "mlp";
}

std::vector<std::string> CheckpointNaming::sources(const WeightSpec& spec) const {
  Names names = source_table().at(weight_of(spec));
  for (std::string& name : names) {
    replace(name, '?', compressed_queries_ ? "q_a_proj" : "q_proj");
    if (spec.layer == 0) continue;
    replace(name, '*', moe_block(spec.layer));
    name = layer_prefix(spec.layer) + name;
  }
  return names;
}

bool CheckpointNaming::experts_fused(int layer) const {
  return contains_(fused_source(layer, WeightRole::expert_gate_up));
}

std::vector<std::string> CheckpointNaming::expert_sources(int layer, WeightRole role,
                                                          int expert) const {
  const std::string prefix =
      layer_prefix(layer) + moe_block(layer) + ".experts." + std::to_string(expert) + ".";
  if (role == WeightRole::expert_down) {
    return {prefix + (mixtral_ ? "w2.weight" : "down_proj.weight")};
  }
  return {prefix + (mixtral_ ? "w1.weight" : "gate_proj.weight"),
          prefix + (mixtral_ ? "w3.weight" : "up_proj.weight")};
}

std::string CheckpointNaming::fused_source(int layer, WeightRole role) const {
  return layer_prefix(layer) + moe_block(layer) +
         (role == WeightRole::expert_down ? ".experts.down_proj" : ".experts.gate_up_proj");
}

bool CheckpointNaming::ignorable(const std::string& name) const {
  if (tied_ && name == "lm_head.weight") return true;
  if (name.ends_with("rotary_emb.inv_freq")) return true;
  if (!name.starts_with(layers_prefix)) return false;
  int layer = -1;
  const char* digits = name.data() + layers_prefix.size();
  const auto [stop, error] = std::from_chars(digits, name.data() + name.size(), layer);
  return error == std::errc{} && *stop == '.' && layer >= layers_;
}

}  // namespace farskip
