#include "farskip/nn/attention_prepare_gradient.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>

#include "farskip/base/error.h"
#include "farskip/nn/check.h"
#include "farskip/nn/norm.h"
#include "farskip/nn/norm_gradient.h"

namespace farskip {
namespace {

using QkNorm = AttentionConfig::QkNorm;

// Undoes a rotation, which turns a gradient by rotated heads into one by heads.
void rotate_back_(const at::Tensor& d, const RopeTable& rope, bool interleaved) {
  apply_rope_(d, {rope.cos, rope.sin.neg()}, interleaved);
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

at::Tensor by_heads(const at::Tensor& x, int64_t head) { return x.unflatten(1, {-1, head}); }

// How the norms of q and k see their rows: per head, or over all heads at once.
at::Tensor norm_rows(const AttentionConfig& attention, const at::Tensor& x) {
  return attention.qk_norm == QkNorm::per_head ? by_heads(x, attention.head_dim) : x;
}

// From the gradient by what a norm of q or k made and clipping left, into `d_x`; d_y becomes the
// gradient by what the norm made.
void through_norm(const ModelConfig& config, const at::Tensor& d_x, const at::Tensor& d_y,
                  const at::Tensor& x, const at::Tensor& weight) {
  const AttentionConfig& attention = config.attention;
  const at::Tensor rows = norm_rows(attention, x), d_rows = norm_rows(attention, d_y);
  if (attention.clip_qkv > 0) {
    d_rows.copy_(unclipped(d_rows, rms_norm(rows, weight, config.norm_eps), attention.clip_qkv));
  }
  rms_norm_gradient_out(norm_rows(attention, d_x), d_rows, rows, weight, config.norm_eps);
}

// Every part is written where it belongs, so that nothing is put together afterwards.
AttentionPrepareGradient grouped_gradient(const ModelConfig& config,
                                          const AttentionWeights& weights, const AttentionInputs& d,
                                          const RopeTable& rope, const at::Tensor& first) {
  const AttentionConfig& attention = config.attention;
  const GroupedWidths widths(attention);
  const int64_t tokens = d.q.size(0), rotated = widths.q + widths.kv;
  const bool normed = attention.qk_norm != QkNorm::none;
  AttentionPrepareGradient result;
  result.first = at::empty({tokens, rotated + widths.kv}, d.q.options());
  if (normed) result.normed = at::empty({tokens, rotated}, d.q.options());
  auto take = [&](const at::Tensor& d_heads, int64_t at, int64_t width, const at::Tensor& weight) {
    const at::Tensor of_first = columns(result.first, at, width);
    const at::Tensor behind = normed ? columns(result.normed, at, width) : of_first;
    by_heads(behind, widths.head).copy_(d_heads);
    rotate_back_(by_heads(behind, widths.head), rope, config.rope.interleaved);
    if (normed) through_norm(config, of_first, behind, columns(first, at, width), weight);
  };
  take(d.q, 0, widths.q, weights.q_norm);
  take(d.k, widths.q, widths.kv, weights.k_norm);
  at::Tensor d_v = columns(result.first, rotated, widths.kv);
  d_v.copy_(d.v.flatten(1));
  if (attention.clip_qkv > 0) {
    d_v.copy_(unclipped(d_v, columns(first, rotated, widths.kv), attention.clip_qkv));
  }
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
  const int64_t tokens = d.q.size(0);
  const auto options = d.q.options();
  AttentionPrepareGradient result;
  result.first = at::empty({tokens, w.q + w.latent + w.rotated}, options);
  const at::Tensor of_q = columns(result.first, 0, w.q);
  if (w.q_lora > 0) result.q_b = at::empty({tokens, w.heads * (w.nope + w.rotated)}, options);
  const at::Tensor d_q = by_heads(w.q_lora > 0 ? result.q_b : of_q, w.nope + w.rotated);
  d_q.copy_(d.q);
  rotate_back_(d_q.narrow(2, w.nope, w.rotated), rope, interleaved);
  // All heads share the rotated part of k.
  at::Tensor d_rotated = by_heads(columns(result.first, w.q + w.latent, w.rotated), w.rotated);
  at::sum_out(d_rotated, d.k.narrow(2, w.nope, w.rotated), {1}, /*keepdim=*/true);
  rotate_back_(d_rotated, rope, interleaved);

  result.kv_b = at::empty({tokens, w.heads * (w.nope + w.value)}, options);
  const at::Tensor d_kv = by_heads(result.kv_b, w.nope + w.value);
  d_kv.narrow(2, 0, w.nope).copy_(d.k.narrow(2, 0, w.nope));
  d_kv.narrow(2, w.nope, w.value).copy_(d.v);
  result.normed = at::empty({tokens, w.q_lora + w.latent}, options);
  auto through = [&](const at::Tensor& delta, const at::Tensor& matrix, int64_t at, int64_t width,
                     int64_t of_first, const at::Tensor& norm) {
    at::Tensor normed = columns(result.normed, at, width);
    at::mm_out(normed, delta, matrix);
    rms_norm_gradient_out(columns(result.first, of_first, width), normed,
                          columns(first, of_first, width), norm, eps);
  };
  if (w.q_lora > 0) through(result.q_b, weights.q_b, 0, w.q_lora, 0, weights.q_a_norm);
  through(result.kv_b, weights.kv_b, w.q_lora, w.latent, w.q, weights.kv_a_norm);
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
