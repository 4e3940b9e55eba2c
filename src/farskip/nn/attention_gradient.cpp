#include "farskip/nn/attention_gradient.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention_backward.h>
#include <ATen/ops/_scaled_dot_product_flash_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_backward.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <array>
#include <limits>
#include <tuple>

#include "farskip/nn/check.h"
#include "farskip/nn/sequences.h"

namespace farskip {
namespace {

// Which of the library's kernels computes a group of sequences. All but cuDNN's want heads of one
// width: values are filled up with zeros, which makes zeros in the output.
enum class Kernel { cpu, operators, flash, cudnn };

bool is_half(const at::Tensor& x) {
  return x.scalar_type() == at::kHalf || x.scalar_type() == at::kBFloat16;
}

// cuDNN's is the faster one of a GPU, for heads of the widths that models have, and never promises
// the same bits twice.
Kernel kernel_for(const at::Tensor& q, const at::Tensor& v, int64_t length) {
  if (q.is_cpu()) return Kernel::cpu;
  if (!is_half(q)) return Kernel::operators;
  constexpr int64_t multiple = 8, widest = 192, widest_value = 128;
  const int64_t width = q.size(2), value = v.size(2);
  const bool fits = width % multiple == 0 && value % multiple == 0 && width <= widest &&
                    value <= widest_value && length > 1;
  return fits && !at::globalContext().deterministicAlgorithms() ? Kernel::cudnn : Kernel::flash;
}

at::Tensor by_heads(const at::Tensor& x) { return x.transpose(1, 2); }

// [B, S, heads, d] -> [B, S, all, d]: each head for its group of queries.
at::Tensor repeat(const at::Tensor& x, int64_t all) {
  const int64_t times = all / x.size(2);
  return times == 1 ? x : x.repeat_interleave(times, 2);
}

at::Tensor fill_up(const at::Tensor& x, int64_t width) {
  return x.size(3) == width ? x : at::constant_pad_nd(x, {0, width - x.size(3)});
}

// A group of sequences as a kernel wants it: [B, heads, S, d], as many heads of k and v as of q.
struct Fused {
  Kernel kernel;
  int64_t value;  // width of v before it was filled up
  at::Tensor q, k, v;

  Fused(const SequenceGroup& group, const AttentionInputs& inputs)
      : kernel(kernel_for(inputs.q, inputs.v, group.length)),
        value(inputs.v.size(2)),
        q(by_heads(group.of(inputs.q))),
        k(by_heads(repeat(group.of(inputs.k), inputs.q.size(1)))),
        v(of_values(repeat(group.of(inputs.v), inputs.q.size(1)))) {}

  // [B, S, heads, value] as the kernel wants it.
  at::Tensor of_values(const at::Tensor& x) const {
    return by_heads(kernel == Kernel::cudnn ? x : fill_up(x, q.size(3)));
  }
};

// [B, S, all, d] -> [B, S, heads, width]: the sum over each head's group of queries.
at::Tensor sum_groups(const at::Tensor& x, int64_t heads, int64_t width) {
  const int64_t times = x.size(2) / heads;
  const at::Tensor used = x.narrow(3, 0, width);
  return times == 1 ? used : used.unflatten(2, {heads, times}).sum(3);
}

std::tuple<at::Tensor, at::Tensor> attend(const Fused& x, double scale) {
  switch (x.kernel) {
    case Kernel::operators:
      return tensor_ops::attend(x.q, x.k, x.v, scale);
    case Kernel::cpu:
      return at::_scaled_dot_product_flash_attention_for_cpu(x.q, x.k, x.v, 0.0,
                                                             /*is_causal=*/true, {}, scale);
    case Kernel::flash: {
      auto made = at::_scaled_dot_product_flash_attention(x.q, x.k, x.v, 0.0, /*is_causal=*/true,
                                                          /*return_debug_mask=*/false, scale);
      return {std::get<0>(made), std::get<1>(made)};
    }
    case Kernel::cudnn:
      break;
  }
  auto made = at::_scaled_dot_product_cudnn_attention(
      x.q, x.k, x.v, /*attn_bias=*/{}, /*compute_log_sumexp=*/true, 0.0, /*is_causal=*/true,
      /*return_debug_mask=*/false, scale);
  return {std::get<0>(made), std::get<1>(made).view({x.q.size(0), x.q.size(1), x.q.size(2)})};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> attend_backward(const at::Tensor& d_out,
                                                               const Fused& x,
                                                               const at::Tensor& out,
                                                               const at::Tensor& log_sum_exp,
                                                               double scale) {
  const int64_t length = x.q.size(2);
  // Without dropout the random state is not looked at.
  switch (x.kernel) {
    case Kernel::operators:
      return tensor_ops::attend_backward(d_out, x.q, x.k, x.v, out, log_sum_exp, scale);
    case Kernel::cpu:
      return at::_scaled_dot_product_flash_attention_for_cpu_backward(
          d_out, x.q, x.k, x.v, out, log_sum_exp, 0.0, /*is_causal=*/true, {}, scale);
    case Kernel::flash: {
      const at::Tensor unused = at::zeros({2}, x.q.options().dtype(at::kUInt64));
      return at::_scaled_dot_product_flash_attention_backward(
          d_out, x.q, x.k, x.v, out, log_sum_exp, {}, {}, length, length, 0.0,
          /*is_causal=*/true, unused, unused, scale);
    }
    case Kernel::cudnn:
      break;
  }
  const at::Tensor unused = at::empty({}, x.q.options().dtype(at::kLong));
  return at::_scaled_dot_product_cudnn_attention_backward(
      d_out, x.q, x.k, x.v, out, log_sum_exp.unsqueeze(-1), unused, unused, /*attn_bias=*/{}, {},
      {}, length, length, 0.0, /*is_causal=*/true, scale);
}

// What `compute` makes of each group of sequences, [B, S, ...] each, as tensors [T, ...]: where
// there is one group, what it made.
template <size_t Count, typename Compute>
std::array<at::Tensor, Count> by_groups(const std::vector<SequenceGroup>& groups, int64_t tokens,
                                        Compute compute) {
  std::array<at::Tensor, Count> all;
  for (const SequenceGroup& group : groups) {
    const std::array<at::Tensor, Count> made = compute(group);
    for (size_t i = 0; i < Count; ++i) {
      if (groups.size() == 1) {
        all[i] = made[i].flatten(0, 1);
        continue;
      }
      if (!all[i].defined()) {
        std::vector<int64_t> shape = made[i].sizes().slice(1).vec();
        shape[0] = tokens;
        all[i] = at::empty(shape, made[i].options());
      }
      group.of(all[i]).copy_(made[i]);
    }
  }
  return all;
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

AttentionSaved attention_core_saving(const AttentionInputs& inputs,
                                     const std::vector<int64_t>& lengths, double scale) {
  check_attention_inputs(inputs);
  const auto& [q, k, v] = inputs;
  const int64_t tokens = q.size(0), heads = q.size(1), value = v.size(2);
  if (tokens == 0) {
    return {at::empty({0, heads * value}, q.options()),
            at::empty({0, heads}, q.options().dtype(at::kFloat))};
  }
  const auto groups = group_sequences(lengths, tokens, q.is_cpu());
  auto [out, sums] = by_groups<2>(groups, tokens, [&](const SequenceGroup& group) {
    const auto [made, log_sum_exp] = attend(Fused(group, inputs), scale);
    return std::array{by_heads(made).narrow(3, 0, value), by_heads(log_sum_exp)};
  });
  return {out.reshape({tokens, heads * value}), sums.contiguous()};
}

AttentionInputs attention_core_gradient(const at::Tensor& d_out, const AttentionInputs& inputs,
                                        const AttentionSaved& saved,
                                        const std::vector<int64_t>& lengths, double scale) {
  const auto& [q, k, v] = inputs;
  check_attention(inputs, d_out);
  check_attention(inputs, saved.out);
  const int64_t tokens = q.size(0), heads = q.size(1), kv_heads = k.size(1), value = v.size(2);
  require_shape(saved.log_sum_exp, {tokens, heads}, "attention log-sum-exp");
  if (tokens == 0) return {at::empty_like(q), at::empty_like(k), at::empty_like(v)};
  const auto groups = group_sequences(lengths, tokens, q.is_cpu());
  auto [d_q, d_k, d_v] = by_groups<3>(groups, tokens, [&](const SequenceGroup& group) {
    const Fused fused(group, inputs);
    auto of_output = [&](const at::Tensor& x) {
      return fused.of_values(group.of(x).unflatten(2, {heads, value}));
    };
    const auto [by_q, by_k, by_v] =
        attend_backward(of_output(d_out), fused, of_output(saved.out),
                        by_heads(group.of(saved.log_sum_exp)).contiguous(), scale);
    return std::array{by_heads(by_q), sum_groups(by_heads(by_k), kv_heads, k.size(2)),
                      sum_groups(by_heads(by_v), kv_heads, value)};
  });
  return {d_q, d_k, d_v};
}

}  // namespace farskip
