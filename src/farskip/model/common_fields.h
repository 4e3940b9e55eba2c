#pragma once

#include <string_view>
#include <vector>

#include "farskip/model/config.h"
#include "farskip/model/fields.h"

namespace farskip {

// Parts of a config.json that several families share. All throw ConfigError. Defaults are those
// of the family's class in transformers, given by the caller where families differ.

// Layer count, hidden size, vocabulary, norm epsilon, dtype, quantization, tied embeddings,
// activation; makes model.layers (all still dense) and model.attention.window (all 0).
void read_shape(const Fields& fields, ModelConfig& model, double norm_eps,
                std::string_view layers_key = "num_hidden_layers");

// Heads, k/v heads and head_dim of MHA or GQA. head_dim is hidden / heads where not stated.
void read_grouped_query(const Fields& fields, ModelConfig& model);

// Heads and ranks of latent attention (MLA).
void read_latent(const Fields& fields, ModelConfig& model);

// What a family's rotary embedding is where the file does not say.
struct RopeDefaults {
  double theta = 10000.0;
  double partial = 1.0;  // share of a head that is rotated
  bool interleaved = false;
};

// Rotary embedding, from rope_parameters (transformers 5) or rope_theta, rope_scaling,
// partial_rotary_factor and rotary_dim (hub). Needs read_grouped_query or read_latent before.
void read_rope(const Fields& fields, ModelConfig& model, const RopeDefaults& defaults);

// Expert count and choices a token; the keys that this file uses for them go into errors.
void read_experts(const Fields& fields, ModelConfig& model, std::string_view experts_key,
                  std::string_view top_k_key = "num_experts_per_tok");

// n_group and topk_group; both absent or null: one group. Needs read_experts before.
void read_groups(const Fields& fields, ModelConfig& model, int default_groups,
                 int default_kept_groups);

// Marks the layers that have routed experts, and reads the width of the dense MLP if any is left.
void set_layers(const Fields& fields, ModelConfig& model, const std::vector<bool>& routed,
                std::string_view dense_width_key);

// The MoE layers of first_k_dense_replace and moe_layer_freq. first_k_dense_replace may exceed
// the layer count: a model cut to few layers may have dense ones only.
std::vector<bool> routed_after_dense(const Fields& fields, const ModelConfig& model);

// Sliding window of `sliding_window` for the layers that `slides` marks. None where it is absent,
// null or 0, or no shorter than the longest sequence (max_position_embeddings).
void read_window(const Fields& fields, ModelConfig& model, const std::vector<bool>& slides);

}  // namespace farskip
