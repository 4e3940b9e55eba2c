#include "farskip/nn/tensor_ops.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <tuple>

namespace farskip::tensor_ops {
namespace {

// Ids of the k largest of each row, the lower id first among equals; ascending ids.
at::Tensor largest(const at::Tensor& scores, int64_t k) {
  const at::Tensor order = std::get<1>(at::sort(scores, /*stable=*/true, -1, /*descending=*/true));
  return std::get<0>(at::sort(order.narrow(-1, 0, k), -1));
}

// What experts outside the best groups score is replaced by config.masked_score.
at::Tensor limit_groups(const RouterConfig& config, const at::Tensor& choice) {
  const int64_t size = choice.size(1) / config.groups;
  const at::Tensor grouped = choice.view({-1, config.groups, size});
  const int64_t counted = config.group_score == RouterConfig::GroupScore::best ? 1 : 2;
  const at::Tensor descending = std::get<0>(at::sort(grouped, -1, /*descending=*/true));
  const at::Tensor kept = largest(descending.narrow(-1, 0, counted).sum(-1), config.kept_groups);
  const at::Tensor mask =
      at::zeros({choice.size(0), config.groups}, choice.options().dtype(at::kBool))
          .scatter_(1, kept, true)
          .unsqueeze(-1)
          .expand_as(grouped);
  return at::where(mask, grouped, config.masked_score).view_as(choice);
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  const at::Tensor scale = at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
  return (wide * scale).to(x.scalar_type()) * weight;
}

void apply_rope_(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                 bool interleaved) {
  const int64_t pairs = cos.size(1);
  const at::Tensor rotated = x.narrow(-1, 0, 2 * pairs);
  const at::Tensor split = interleaved ? rotated.unflatten(-1, {pairs, 2})
                                       : rotated.unflatten(-1, {2, pairs}).transpose(-1, -2);
  const at::Tensor first = split.select(-1, 0).to(at::kFloat);
  const at::Tensor second = split.select(-1, 1).to(at::kFloat);
  const at::Tensor c = cos.unsqueeze(1), s = sin.unsqueeze(1);
  split.copy_(at::stack({first * c - second * s, second * c + first * s}, -1));
}

Routing choose_experts(const RouterConfig& config, const at::Tensor& logits,
                       const at::Tensor& correction_bias) {
  at::Tensor scores = logits;
  if (config.scoring == RouterConfig::Scoring::softmax) scores = at::softmax(logits, -1);
  if (config.scoring == RouterConfig::Scoring::sigmoid) scores = at::sigmoid(logits);
  at::Tensor choice = correction_bias.defined() ? scores + correction_bias : scores;
  if (config.groups > 1) choice = limit_groups(config, choice);
  const at::Tensor experts = largest(choice, config.top_k);
  at::Tensor weights = scores.gather(1, experts);
  if (config.scoring == RouterConfig::Scoring::softmax_of_chosen) weights = at::softmax(weights, 1);
  if (config.normalize) weights = weights / (weights.sum(1, true) + config.normalize_epsilon);
  return {experts, weights * config.scale};
}

DispatchPlan make_plan(const at::Tensor& experts, const at::Tensor& position_of_expert) {
  const at::Tensor position = position_of_expert.index_select(0, experts.flatten());
  const at::Tensor order = at::argsort(position, /*stable=*/true, 0, /*descending=*/false);
  at::Tensor inverse = at::empty_like(order);
  inverse.scatter_(0, order, at::arange(order.numel(), order.options()));
  return {order, inverse, at::bincount(position, {}, position_of_expert.numel())};
}

at::Tensor unpermute(const at::Tensor& rows, const at::Tensor& inverse, const at::Tensor& weights) {
  const int64_t tokens = weights.size(0), top_k = weights.size(1);
  const at::Tensor slots = inverse.view({tokens, top_k});
  at::Tensor sum = at::zeros({tokens, rows.size(1)}, rows.options().dtype(at::kFloat));
  for (int64_t slot = 0; slot < top_k; ++slot) {
    const at::Tensor chosen = rows.index_select(0, slots.select(1, slot)).to(at::kFloat);
    sum = sum + chosen * weights.narrow(1, slot, 1);
  }
  return sum.to(rows.scalar_type());
}

}  // namespace farskip::tensor_ops
