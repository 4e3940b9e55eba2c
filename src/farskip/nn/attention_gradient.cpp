#include "farskip/nn/attention_gradient.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_scaled_dot_product_flash_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_backward.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <limits>
#include <tuple>

#include "farskip/nn/check.h"
#include "farskip/nn/sequences.h"

namespace farskip {
namespace {

// The fused kernels take heads of one width and as many of k and v as of q. Values are filled up
// with zeros, which makes zeros in the output.
struct FusedInputs {
  at::Tensor q, k, v;  // [B, heads, S, qk]

  FusedInputs(const SequenceGroup& group, const AttentionInputs& inputs)
      : q(by_heads(group.of(inputs.q))),
        k(by_heads(repeat(group.of(inputs.k), inputs.q.size(1)))),
        v(by_heads(fill_up(repeat(group.of(inputs.v), inputs.q.size(1)), inputs.q.size(2)))) {}

  static at::Tensor by_heads(const at::Tensor& x) { return x.transpose(1, 2); }
  // [B, S, heads, d] -> [B, S, all, d]: each head for its group of queries.
  static at::Tensor repeat(const at::Tensor& x, int64_t all) {
    const int64_t times = all / x.size(2);
    return times == 1 ? x : x.repeat_interleave(times, 2);
  }
  static at::Tensor fill_up(const at::Tensor& x, int64_t width) {
    return x.size(3) == width ? x : at::constant_pad_nd(x, {0, width - x.size(3)});
  }
};

// [B, S, all, d] -> [B, S, heads, d]: the sum over each head's group of queries, into `out`.
void sum_groups(const at::Tensor& out, const at::Tensor& x) {
  const int64_t heads = out.size(2), times = x.size(2) / heads;
  const at::Tensor used = x.narrow(3, 0, out.size(3));
  at::Tensor(out).copy_(times == 1 ? used : used.unflatten(2, {heads, times}).sum(3));
}

// A GPU's fused kernels take half precision only.
bool is_fused(const at::Tensor& q) {
  return q.is_cpu() || q.scalar_type() == at::kHalf || q.scalar_type() == at::kBFloat16;
}

std::tuple<at::Tensor, at::Tensor> attend(const FusedInputs& x, double scale) {
  if (!is_fused(x.q)) return tensor_ops::attend(x.q, x.k, x.v, scale);
  if (x.q.is_cpu()) {
    return at::_scaled_dot_product_flash_attention_for_cpu(x.q, x.k, x.v, 0.0, /*is_causal=*/true,
                                                           {}, scale);
  }
  auto made = at::_scaled_dot_product_flash_attention(x.q, x.k, x.v, 0.0, /*is_causal=*/true,
                                                      /*return_debug_mask=*/false, scale);
  return {std::get<0>(made), std::get<1>(made)};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> attend_backward(const at::Tensor& d_out,
                                                               const FusedInputs& x,
                                                               const at::Tensor& out,
                                                               const at::Tensor& log_sum_exp,
                                                               double scale) {
  if (!is_fused(x.q)) {
    return tensor_ops::attend_backward(d_out, x.q, x.k, x.v, out, log_sum_exp, scale);
  }
  if (x.q.is_cpu()) {
    return at::_scaled_dot_product_flash_attention_for_cpu_backward(
        d_out, x.q, x.k, x.v, out, log_sum_exp, 0.0, /*is_causal=*/true, {}, scale);
  }
  // Without dropout the random state is not looked at.
  const at::Tensor unused = at::zeros({2}, x.q.options().dtype(at::kUInt64));
  return at::_scaled_dot_product_flash_attention_backward(
      d_out, x.q, x.k, x.v, out, log_sum_exp, {}, {}, x.q.size(2), x.k.size(2), 0.0,
      /*is_causal=*/true, unused, unused, scale);
}

}  // namespace

namespace tensor_ops {
namespace {

// Scores [B, heads, S, S] of queries that see themselves and what is before them.
at::Tensor causal_scores(const at::Tensor& q, const at::Tensor& k, double scale) {
  const at::Tensor scores = at::matmul(q, k.transpose(-1, -2)) * scale;
  const int64_t length = q.size(2);
  const at::Tensor later = at::ones({length, length}, q.options().dtype(at::kBool)).triu(1);
  return scores.masked_fill(later, -std::numeric_limits<double>::infinity());
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> attend(const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, double scale) {
  const at::Tensor scores = causal_scores(q, k, scale);
  const at::Tensor sums = at::logsumexp(scores, {-1});
  return {at::matmul((scores - sums.unsqueeze(-1)).exp(), v), sums};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> attend_backward(
    const at::Tensor& d_out, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
    const at::Tensor& out, const at::Tensor& log_sum_exp, double scale) {
  const at::Tensor p = (causal_scores(q, k, scale) - log_sum_exp.unsqueeze(-1)).exp();
  const at::Tensor along = (d_out * out).sum(-1, /*keepdim=*/true);
  const at::Tensor d_scores = p * (at::matmul(d_out, v.transpose(-1, -2)) - along) * scale;
  return {at::matmul(d_scores, k), at::matmul(d_scores.transpose(-1, -2), q),
          at::matmul(p.transpose(-1, -2), d_out)};
}

}  // namespace tensor_ops

void attention_core_saving(const at::Tensor& out, const at::Tensor& log_sum_exp,
                           const AttentionInputs& inputs, const std::vector<int64_t>& lengths,
                           double scale) {
  check_attention(inputs, out);
  const auto& [q, k, v] = inputs;
  require_shape(log_sum_exp, {q.size(0), q.size(1)}, "attention log-sum-exp");
  const at::Tensor heads = out.unflatten(1, {q.size(1), v.size(2)});
  for (const SequenceGroup& group : group_sequences(lengths, q.size(0), q.is_cpu())) {
    const auto [made, sums] = attend(FusedInputs(group, inputs), scale);
    group.of(heads).copy_(FusedInputs::by_heads(made).narrow(3, 0, v.size(2)));
    group.of(log_sum_exp).copy_(FusedInputs::by_heads(sums));
  }
}

void attention_core_gradient(const AttentionInputs& d_inputs, const at::Tensor& d_out,
                             const AttentionInputs& inputs, const at::Tensor& out,
                             const at::Tensor& log_sum_exp, const std::vector<int64_t>& lengths,
                             double scale) {
  check_attention(inputs, out);
  check_attention(d_inputs, d_out);
  const auto& [q, k, v] = inputs;
  require_shape(log_sum_exp, {q.size(0), q.size(1)}, "attention log-sum-exp");
  auto by_heads = [&](const SequenceGroup& group, const at::Tensor& x) {
    const at::Tensor heads = group.of(x).unflatten(2, {q.size(1), v.size(2)});
    return FusedInputs::by_heads(FusedInputs::fill_up(heads, q.size(2)));
  };
  for (const SequenceGroup& group : group_sequences(lengths, q.size(0), q.is_cpu())) {
    const auto [d_q, d_k, d_v] =
        attend_backward(by_heads(group, d_out), FusedInputs(group, inputs), by_heads(group, out),
                        FusedInputs::by_heads(group.of(log_sum_exp)).contiguous(), scale);
    group.of(d_inputs.q).copy_(FusedInputs::by_heads(d_q));
    sum_groups(group.of(d_inputs.k), FusedInputs::by_heads(d_k));
    sum_groups(group.of(d_inputs.v), FusedInputs::by_heads(d_v));
  }
}

}  // namespace farskip
