#include "farskip/nn/attention_prepare_gradient.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros_like.h>

#include "farskip/base/error.h"
#include "farskip/nn/check.h"
#include "farskip/nn/norm.h"
#include "farskip/nn/norm_gradient.h"

namespace farskip {
namespace {

using QkNorm = AttentionConfig::QkNorm;

// Undoes a rotation, which turns a gradient by rotated heads into one by heads: a copy.
at::Tensor rotate_back(const at::Tensor& d, const RopeTable& rope, bool interleaved) {
  const at::Tensor heads = d.clone(at::MemoryFormat::Contiguous);
  apply_rope_(heads, {rope.cos, rope.sin.neg()}, interleaved);
  return heads;
}

// Columns [first, first + count) of x.
at::Tensor columns(const at::Tensor& x, int64_t first, int64_t count) {
  return x.narrow(1, first, count);
}

// Zero where clipping changed the value.
at::Tensor unclipped(const at::Tensor& d, const at::Tensor& value, double limit) {
  return limit > 0 ? d * value.abs().le(limit) : d;
}

struct GroupedWidths {
  int64_t q, kv, head;
  explicit GroupedWidths(const AttentionConfig& a)
      : q(int64_t{a.heads} * a.head_dim), kv(int64_t{a.kv_heads} * a.head_dim), head(a.head_dim) {}
};

// How the norms of q and k see their rows: per head, or over all heads at once.
at::Tensor norm_rows(const AttentionConfig& attention, const at::Tensor& x) {
  return attention.qk_norm == QkNorm::per_head ? x.reshape({-1, attention.head_dim}) : x;
}

AttentionPrepareGradient grouped_gradient(const ModelConfig& config,
                                          const AttentionWeights& weights, const AttentionInputs& d,
                                          const RopeTable& rope, const at::Tensor& first) {
  const AttentionConfig& attention = config.attention;
  const GroupedWidths widths(attention);
  AttentionPrepareGradient result;
  at::Tensor d_q = rotate_back(d.q, rope, config.rope.interleaved).flatten(1);
  at::Tensor d_k = rotate_back(d.k, rope, config.rope.interleaved).flatten(1);
  at::Tensor d_v = d.v.flatten(1);
  if (attention.qk_norm != QkNorm::none) {
    const at::Tensor q = columns(first, 0, widths.q), k = columns(first, widths.q, widths.kv);
    auto behind_norm = [&](const at::Tensor& d_y, const at::Tensor& x, const at::Tensor& weight) {
      if (attention.clip_qkv <= 0) return d_y;
      const at::Tensor y = rms_norm(norm_rows(attention, x), weight, config.norm_eps);
      return unclipped(d_y, y.view_as(d_y), attention.clip_qkv);
    };
    const at::Tensor normed_q = behind_norm(d_q, q, weights.q_norm);
    const at::Tensor normed_k = behind_norm(d_k, k, weights.k_norm);
    auto before_norm = [&](const at::Tensor& d_y, const at::Tensor& x, const at::Tensor& weight) {
      return rms_norm_gradient(norm_rows(attention, d_y), norm_rows(attention, x), weight,
                               config.norm_eps)
          .view_as(d_y);
    };
    d_q = before_norm(normed_q, q, weights.q_norm);
    d_k = before_norm(normed_k, k, weights.k_norm);
    d_v = unclipped(d_v, columns(first, widths.q + widths.kv, widths.kv), attention.clip_qkv);
    result.normed = at::cat({normed_q, normed_k}, 1);
  }
  result.first = at::cat({d_q, d_k, d_v}, 1);
  result.x = at::mm(result.first, weights.qkv);
  return result;
}

struct LatentWidths {
  int64_t heads, nope, rotated, value, q_lora, latent, q;
  explicit LatentWidths(const AttentionConfig& a)
      : heads(a.heads),
        nope(a.qk_nope_head_dim),
        rotated(a.qk_rope_head_dim),
        value(a.v_head_dim),
        q_lora(a.q_lora_rank),
        latent(a.kv_lora_rank),
        q(a.q_lora_rank > 0 ? a.q_lora_rank : int64_t{a.heads} * a.qk_head_dim()) {}
};

AttentionPrepareGradient latent_gradient(const ModelConfig& config, const AttentionWeights& weights,
                                         const AttentionInputs& d, const RopeTable& rope,
                                         const at::Tensor& first) {
  const LatentWidths w(config.attention);
  const double eps = config.attention.lora_norm_eps;
  const bool interleaved = config.rope.interleaved;
  AttentionPrepareGradient result;
  at::Tensor d_q = d.q.clone(at::MemoryFormat::Contiguous);
  apply_rope_(d_q.narrow(2, w.nope, w.rotated), {rope.cos, rope.sin.neg()}, interleaved);
  d_q = d_q.flatten(1);
  // All heads share the rotated part of k.
  const at::Tensor d_rotated =
      rotate_back(d.k.narrow(2, w.nope, w.rotated).sum(1, /*keepdim=*/true), rope, interleaved);
  result.kv_b = at::cat({d.k.narrow(2, 0, w.nope), d.v}, 2).flatten(1);
  const at::Tensor d_latent = at::mm(result.kv_b, weights.kv_b);
  result.normed = d_latent;
  if (w.q_lora > 0) {
    result.q_b = d_q;
    const at::Tensor d_normed = at::mm(d_q, weights.q_b);
    result.normed = at::cat({d_normed, d_latent}, 1);
    d_q = rms_norm_gradient(d_normed, columns(first, 0, w.q_lora), weights.q_a_norm, eps);
  }
  result.first = at::cat(
      {d_q, rms_norm_gradient(d_latent, columns(first, w.q, w.latent), weights.kv_a_norm, eps),
       d_rotated.flatten(1)},
      1);
  result.x = at::mm(result.first, weights.q_kv_a);
  return result;
}

// The contributions of a linear whose input was normed: by its weight and by the norm's.
void take_behind_norm(const std::optional<WeightGradient>& weight,
                      const std::optional<WeightGradient>& norm, const at::Tensor& delta,
                      const at::Tensor& d_normed, const at::Tensor& x,
                      const at::Tensor& norm_weight, double eps) {
  weight->take_product(delta, rms_norm(x, norm_weight, eps));
  rms_norm_weight_gradient(*norm, d_normed, x, eps);
}

}  // namespace

AttentionPrepareGradient attention_prepare_gradient(const ModelConfig& config,
                                                    const AttentionWeights& weights,
                                                    const AttentionInputs& d, const RopeTable& rope,
                                                    const at::Tensor& first) {
  check_supported(config.attention);
  const bool latent = config.attention.kind == AttentionConfig::Kind::latent;
  if (!latent && config.attention.qk_norm == QkNorm::none && config.attention.clip_qkv > 0) {
    throw UnsupportedError("this attention has no gradient",
                           {.where = "attention", .found = "clipping without norms"});
  }
  return latent ? latent_gradient(config, weights, d, rope, first)
                : grouped_gradient(config, weights, d, rope, first);
}

void attention_prepare_weight_gradient(const ModelConfig& config,
                                       const AttentionWeightGradients& gradients,
                                       const AttentionWeights& weights, const at::Tensor& x,
                                       const at::Tensor& first,
                                       const AttentionPrepareGradient& deltas) {
  const AttentionConfig& attention = config.attention;
  if (attention.kind == AttentionConfig::Kind::grouped_query) {
    gradients.qkv->take_product(deltas.first, x);
    if (attention.qk_norm == QkNorm::none) return;
    const GroupedWidths widths(attention);
    auto take = [&](const WeightGradient& gradient, int64_t from, int64_t width) {
      rms_norm_weight_gradient(gradient, norm_rows(attention, columns(deltas.normed, from, width)),
                               norm_rows(attention, columns(first, from, width)), config.norm_eps);
    };
    take(*gradients.q_norm, 0, widths.q);
    take(*gradients.k_norm, widths.q, widths.kv);
    return;
  }
  const LatentWidths w(attention);
  gradients.q_kv_a->take_product(deltas.first, x);
  if (w.q_lora > 0) {
    take_behind_norm(gradients.q_b, gradients.q_a_norm, deltas.q_b,
                     columns(deltas.normed, 0, w.q_lora), columns(first, 0, w.q_lora),
                     weights.q_a_norm, attention.lora_norm_eps);
  }
  take_behind_norm(gradients.kv_b, gradients.kv_a_norm, deltas.kv_b,
                   columns(deltas.normed, w.q_lora, w.latent), columns(first, w.q, w.latent),
                   weights.kv_a_norm, attention.lora_norm_eps);
}

}  // namespace farskip
