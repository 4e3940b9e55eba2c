#include "farskip/nn/attention.h"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <algorithm>
#include <string>

#include "farskip/base/error.h"
#include "farskip/cuda/rope.h"
#include "farskip/nn/check.h"
#include "farskip/nn/gpu.h"
#include "farskip/nn/linear.h"
#include "farskip/nn/norm.h"
#include "farskip/nn/sequences.h"

namespace farskip {

void check_supported(const AttentionConfig& config) {
  const bool windows = std::any_of(config.window.begin(), config.window.end(),
                                   [](int64_t window) { return window != 0; });
  const char* found = config.qkv_bias || config.output_bias ? "biases"
                      : config.output_gate                  ? "an output gate"
                      : config.sinks                        ? "sinks"
                      : windows                             ? "windows"
                      : config.qk_norm == AttentionConfig::QkNorm::l2_after_rope
                          ? "an l2 norm after the rotation"
                          : nullptr;
  if (found == nullptr) return;
  throw UnsupportedError("this attention has no kernel",
                         {.where = "attention",
                          .expected = "plain grouped-query or latent attention",
                          .found = found,
                          .hint = {}});
}

namespace {

// Columns [first, first + heads * dim) of x [T, columns] as [T, heads, dim], without a copy.
at::Tensor heads_of(const at::Tensor& x, int64_t first, int64_t heads, int64_t dim) {
  return x.narrow(1, first, heads * dim).unflatten(1, {heads, dim});
}

void clip_(const at::Tensor& x, double limit) { at::Tensor(x).clamp_(-limit, limit); }

// `first`: where the first product is kept, or null.
AttentionInputs prepare_grouped(const ModelConfig& config, const AttentionWeights& weights,
                                const at::Tensor& x, const RopeTable& rope, at::Tensor* first) {
  const AttentionConfig& attention = config.attention;
  const int64_t dim = attention.head_dim;
  const int64_t q_width = attention.heads * dim, kv_width = attention.kv_heads * dim;
  require_shape(weights.qkv, {q_width + 2 * kv_width, x.size(1)}, "attention.qkv");
  const at::Tensor qkv = linear(x, weights.qkv);
  if (first && attention.qk_norm != AttentionConfig::QkNorm::none) *first = qkv.clone();
  const AttentionInputs inputs{heads_of(qkv, 0, attention.heads, dim),
                               heads_of(qkv, q_width, attention.kv_heads, dim),
                               heads_of(qkv, q_width + kv_width, attention.kv_heads, dim)};
  const bool per_head = attention.qk_norm == AttentionConfig::QkNorm::per_head;
  const bool fused = has_gpu_kernels(qkv) && attention.clip_qkv <= 0.0;
  if (fused && (per_head || attention.qk_norm == AttentionConfig::QkNorm::none)) {
    cuda::grouped_rope_(inputs.q, inputs.k, per_head ? weights.q_norm : at::Tensor(),
                        per_head ? weights.k_norm : at::Tensor(), config.norm_eps, rope.cos,
                        rope.sin, config.rope.interleaved);
    return inputs;
  }
  if (per_head) {
    rms_norm_out(inputs.q, inputs.q, weights.q_norm, config.norm_eps);
    rms_norm_out(inputs.k, inputs.k, weights.k_norm, config.norm_eps);
  } else if (attention.qk_norm == AttentionConfig::QkNorm::all_heads) {
    const at::Tensor q = qkv.narrow(1, 0, q_width), k = qkv.narrow(1, q_width, kv_width);
    rms_norm_out(q, q, weights.q_norm, config.norm_eps);
    rms_norm_out(k, k, weights.k_norm, config.norm_eps);
  }
  if (attention.clip_qkv > 0.0) clip_(qkv, attention.clip_qkv);
  apply_rope_(inputs.q, rope, config.rope.interleaved);
  apply_rope_(inputs.k, rope, config.rope.interleaved);
  return inputs;
}

// q of latent attention: straight from the first product, or through its compressed form.
at::Tensor latent_q(const AttentionConfig& attention, const AttentionWeights& weights,
                    const at::Tensor& compressed) {
  const int64_t heads = attention.heads, qk = attention.qk_head_dim();
  if (attention.q_lora_rank == 0) return heads_of(compressed, 0, heads, qk);
  const at::Tensor normed = rms_norm(compressed.narrow(1, 0, attention.q_lora_rank),
                                     weights.q_a_norm, attention.lora_norm_eps);
  require_shape(weights.q_b, {heads * qk, attention.q_lora_rank}, "attention.q_b");
  return heads_of(linear(normed, weights.q_b), 0, heads, qk);
}

AttentionInputs prepare_latent(const ModelConfig& config, const AttentionWeights& weights,
                               const at::Tensor& x, const RopeTable& rope, at::Tensor* first) {
  const AttentionConfig& attention = config.attention;
  const int64_t heads = attention.heads, nope = attention.qk_nope_head_dim;
  const int64_t rotated = attention.qk_rope_head_dim, value = attention.v_head_dim;
  const int64_t latent = attention.kv_lora_rank;
  const int64_t q_width =
      attention.q_lora_rank > 0 ? attention.q_lora_rank : heads * attention.qk_head_dim();
  require_shape(weights.q_kv_a, {q_width + latent + rotated, x.size(1)}, "attention.q_kv_a");
  require_shape(weights.kv_b, {heads * (nope + value), latent}, "attention.kv_b");

  const at::Tensor compressed = linear(x, weights.q_kv_a);
  if (first) *first = compressed;  // the rotation leaves what norms read alone
  const at::Tensor q = latent_q(attention, weights, compressed);
  const at::Tensor normed =
      rms_norm(compressed.narrow(1, q_width, latent), weights.kv_a_norm, attention.lora_norm_eps);
  const at::Tensor k = at::empty({x.size(0), heads, nope + rotated}, x.options());
  if (has_gpu_kernels(x)) {
    // Two products, each into its place: a copy of k would cost more than what they lose.
    const at::Tensor kv_b = weights.kv_b.unflatten(0, {heads, nope + value});
    const at::Tensor v = at::empty({x.size(0), heads, value}, x.options());
    linear_by_head_out(k.narrow(2, 0, nope), normed, kv_b.narrow(1, 0, nope));
    linear_by_head_out(v, normed, kv_b.narrow(1, nope, value));
    cuda::latent_rope_(q, k, compressed.narrow(1, q_width + latent, rotated), rope.cos, rope.sin,
                       config.rope.interleaved);
    return {q, k, v};
  }
  const at::Tensor kv = heads_of(linear(normed, weights.kv_b), 0, heads, nope + value);
  apply_rope_(q.narrow(2, nope, rotated), rope, config.rope.interleaved);
  const at::Tensor k_rotated = heads_of(compressed, q_width + latent, 1, rotated);
  apply_rope_(k_rotated, rope, config.rope.interleaved);
  k.narrow(2, 0, nope).copy_(kv.narrow(2, 0, nope));
  k.narrow(2, nope, rotated).copy_(k_rotated.expand({-1, heads, -1}));
  return {q, k, kv.narrow(2, nope, value)};
}

AttentionInputs prepare(const ModelConfig& config, const AttentionWeights& weights,
                        const at::Tensor& x, const RopeTable& rope, at::Tensor* first) {
  check_supported(config.attention);
  require_shape(x, {-1, config.hidden}, "attention input");
  const bool latent = config.attention.kind == AttentionConfig::Kind::latent;
  return latent ? prepare_latent(config, weights, x, rope, first)
                : prepare_grouped(config, weights, x, rope, first);
}

// Sequences of one length: q [B, S, heads, qk], k [B, S, kv, qk], v [B, S, kv, value] ->
// [B, S, heads, value], which may have other strides.
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, double scale) {
  const auto by_heads = [](const at::Tensor& x) { return x.transpose(1, 2); };
  const int64_t value = v.size(3), missing = q.size(3) - value;
  // The fused CPU kernel wants heads of one width; its work on the zeros costs less than the
  // general path, which stores all scores, at every length that was tried.
  const bool pad = missing > 0 && q.is_cpu();
  const at::Tensor padded = pad ? at::constant_pad_nd(v, {0, missing}) : v;
  const at::Tensor result = at::scaled_dot_product_attention(
      by_heads(q), by_heads(k), by_heads(padded), /*attn_mask=*/{}, /*dropout_p=*/0.0,
      /*is_causal=*/true, scale, /*enable_gqa=*/k.size(2) != q.size(2));
  return by_heads(result.narrow(3, 0, value));
}

}  // namespace

AttentionInputs attention_prepare(const ModelConfig& config, const AttentionWeights& weights,
                                  const at::Tensor& x, const RopeTable& rope) {
  return prepare(config, weights, x, rope, nullptr);
}

AttentionPrepared attention_prepare_saving(const ModelConfig& config,
                                           const AttentionWeights& weights, const at::Tensor& x,
                                           const RopeTable& rope) {
  AttentionPrepared prepared;
  prepared.inputs = prepare(config, weights, x, rope, &prepared.first);
  return prepared;
}

at::Tensor attention_core(const AttentionInputs& inputs, const std::vector<int64_t>& lengths,
                          double scale) {
  check_attention_inputs(inputs);
  const auto& [q, k, v] = inputs;
  const int64_t tokens = q.size(0), width = q.size(1) * v.size(2);
  if (!q.is_cpu() && tokens > 0) {
    const std::vector<SequenceGroup> groups = group_sequences(lengths, tokens, false);
    // All in one go: what the library makes is the result.
    if (groups.size() == 1) {
      const SequenceGroup& all = groups[0];
      return attend(all.of(q), all.of(k), all.of(v), scale).reshape({tokens, width});
    }
  }
  at::Tensor out = at::empty({tokens, width}, q.options());
  attention_core_out(out, inputs, lengths, scale);
  return out;
}

void check_attention_inputs(const AttentionInputs& inputs) {
  const auto& [q, k, v] = inputs;
  require_shape(q, {-1, -1, -1}, "attention q");
  require_shape(k, {q.size(0), -1, q.size(2)}, "attention k");
  require_shape(v, {q.size(0), k.size(1), -1}, "attention v");
  if (k.size(1) > 0 && q.size(1) % k.size(1) == 0) return;
  throw Error("query heads do not divide over key heads",
              {.where = "attention q",
               .expected = "a multiple of " + std::to_string(k.size(1)) + " heads",
               .found = std::to_string(q.size(1)),
               .hint = {}});
}

void check_attention(const AttentionInputs& inputs, const at::Tensor& out) {
  check_attention_inputs(inputs);
  require_shape(out, {inputs.q.size(0), inputs.q.size(1) * inputs.v.size(2)}, "attention output");
}

void attention_core_out(const at::Tensor& out, const AttentionInputs& inputs,
                        const std::vector<int64_t>& lengths, double scale) {
  check_attention(inputs, out);
  const auto& [q, k, v] = inputs;
  const at::Tensor heads = out.unflatten(1, {q.size(1), v.size(2)});
  for (const SequenceGroup& group : group_sequences(lengths, q.size(0), q.is_cpu())) {
    group.of(heads).copy_(attend(group.of(q), group.of(k), group.of(v), scale));
  }
}

}  // namespace farskip
