#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "farskip/nn/attention.h"
#include "farskip/nn/weight_gradient.h"

namespace farskip {

// The gradient of attention_prepare by x, and by the products and norms inside it, which the weight
// gradients follow from.
struct AttentionPrepareGradient {
  at::Tensor x;      // [T, H]
  at::Tensor first;  // [T, width]: by x qkv^T or x q_kv_a^T
  at::Tensor q_b;    // latent with q_lora: [T, heads qk]: by the product with q_b
  at::Tensor kv_b;   // latent: [T, heads (nope + v)]: by the product with kv_b
  // By what the norms made. latent: [T, q_lora + kv_lora]; grouped_query with norms:
  // [T, (heads + kv_heads) d].
  at::Tensor normed;
};
// d: the gradients by q, k and v; first: as attention_prepare_saving kept it. Throws as
// attention_prepare, and UnsupportedError for clipping without norms.
AttentionPrepareGradient attention_prepare_gradient(const ModelConfig& config,
                                                    const AttentionWeights& weights,
                                                    const AttentionInputs& d, const RopeTable& rope,
                                                    const at::Tensor& first);

// The gradients by the weights that are there, in WeightGradients of the same names.
struct AttentionWeightGradients {
  std::optional<WeightGradient> qkv, q_norm, k_norm, q_kv_a, q_a_norm, q_b, kv_a_norm, kv_b;
};
// `weights`: only norms are read; `deltas`: as attention_prepare_gradient made them, without x.
void attention_prepare_weight_gradient(const ModelConfig& config,
                                       const AttentionWeightGradients& gradients,
                                       const AttentionWeights& weights, const at::Tensor& x,
                                       const at::Tensor& first,
                                       const AttentionPrepareGradient& deltas);

}  // namespace farskip
