#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "farskip/model/config.h"
#include "farskip/nn/rope.h"

namespace farskip {

// Weights that attention_prepare reads; those of the other kind, and what a model does not have,
// stay undefined. d: head_dim, qk = nope + rope.
struct AttentionWeights {
  at::Tensor qkv;             // grouped_query: [(heads + 2 kv_heads) d, H]: q, then k, then v
  at::Tensor q_norm, k_norm;  // per_head: [d] each; all_heads: [heads d], [kv_heads d]
  at::Tensor q_kv_a;          // latent: [(q_lora, or heads qk without it) + kv_lora + rope, H]
  at::Tensor q_a_norm;        // latent with q_lora: [q_lora]
  at::Tensor q_b;             // latent with q_lora: [heads qk, q_lora]
  at::Tensor kv_a_norm;       // latent: [kv_lora]
  at::Tensor kv_b;            // latent: [heads (nope + v), kv_lora], per head nope then v
};

// Throws UnsupportedError for attention that has no kernels here.
void check_supported(const AttentionConfig& config);

// What the attention core reads. Last dimensions are dense, the others may be strided.
struct AttentionInputs {
  at::Tensor q;  // [T, heads, qk]
  at::Tensor k;  // [T, kv_heads (latent: heads), qk]
  at::Tensor v;  // [T, kv_heads (latent: heads), value head]
};

// q, k and v of x [T, H], which is normed already; norms, clipping and rotation of q and k as the
// config says. `rope` is the table of the tokens' positions. Throws UnsupportedError for attention
// biases, gates, sinks, windows and l2 norms; Error if shapes or dtypes do not fit.
AttentionInputs attention_prepare(const ModelConfig& config, const AttentionWeights& weights,
                                  const at::Tensor& x, const RopeTable& rope);

// The same, and the product of x with qkv or q_kv_a before norms, clipping and rotation change what
// norms read of it: its gradient needs it. Undefined for attention without norms.
struct AttentionPrepared {
  AttentionInputs inputs;
  at::Tensor first;  // [T, width]
};
AttentionPrepared attention_prepare_saving(const ModelConfig& config,
                                           const AttentionWeights& weights, const at::Tensor& x,
                                           const RopeTable& rope);

// softmax(scale q k^T) v under a causal mask, for every sequence on its own: tokens are flat,
// `lengths` cuts them into sequences (zeros allowed), each computed separately, so its bits do not
// depend on the others. Heads share k and v in groups where k has fewer. Result
// [T, heads * value head]. Throws Error if shapes do not fit or lengths do not sum to T.
at::Tensor attention_core(const AttentionInputs& inputs, const std::vector<int64_t>& lengths,
                          double scale);

// As attention_core, into `out` [T, heads * value head].
void attention_core_out(const at::Tensor& out, const AttentionInputs& inputs,
                        const std::vector<int64_t>& lengths, double scale);

// Throw Error unless q, k and v, and the attention's output, fit each other.
void check_attention_inputs(const AttentionInputs& inputs);
void check_attention(const AttentionInputs& inputs, const at::Tensor& out);

}  // namespace farskip
