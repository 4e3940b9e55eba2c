#include "farskip/nn/tensor_ops.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <tuple>

#include "farskip/model/packet.h"
#include "farskip/nn/expert_rows.h"
#include "farskip/nn/mlp.h"

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
  // Not bincount, whose result has a size that the host must wait for.
  at::Tensor counts = at::zeros({position_of_expert.numel()}, position.options());
  counts.scatter_add_(0, position, at::ones_like(position));
  return {order, inverse, counts};
}

at::Tensor look_up(const at::Tensor& table, const at::Tensor& ids) {
  return table.index_select(0, ids.flatten()).view_as(ids);
}

RankPlan make_rank_plan(const at::Tensor& experts, const ExpertHomes& homes, int64_t ranks,
                        int64_t chunks) {
  const at::Tensor rank = look_up(homes.rank, experts), chunk = look_up(homes.chunk, experts);
  const int64_t blocks = ranks * chunks;
  // [T, k, k]: which choices of a token are on one rank. The first of them stands for its row.
  const at::Tensor same = rank.unsqueeze(2) == rank.unsqueeze(1);
  const at::Tensor leads = same.tril(-1).any(2).logical_not();
  const at::Tensor first = at::where(same, chunk.unsqueeze(1), chunks).amin(2);
  const at::Tensor last = at::where(same, chunk.unsqueeze(1), -1).amax(2);
  const DispatchPlan out = sort_by_key(at::where(leads, first * ranks + rank, blocks), blocks + 1);
  const at::Tensor back_keys = at::where(leads, last * ranks + rank, blocks).flatten();
  const DispatchPlan back = sort_by_key(back_keys.index_select(0, out.order), blocks + 1);

  const at::Tensor home = at::where(leads, look_up(back.inverse, out.inverse).view_as(leads), -1);
  const at::Tensor by_rank = std::get<1>(
      at::sort(at::where(leads, rank, ranks), /*stable=*/true, 1, /*descending=*/false));
  const at::Tensor key = (chunk * ranks + rank).flatten();
  const at::Tensor computed =
      at::zeros({blocks}, experts.options()).scatter_add_(0, key, at::ones_like(key));
  const at::Tensor counts =
      at::stack({out.counts.narrow(0, 0, blocks), back.counts.narrow(0, 0, blocks), computed});
  return {.order = out.order,
          .inverse = home.gather(1, by_rank).flatten(),
          .counts = counts.view({3 * chunks, ranks}).t().contiguous()};
}

RopeTable rope_table(const RopeFrequencies& frequencies, const at::Tensor& positions) {
  const at::Tensor radians = to_device(
      at::tensor(at::ArrayRef<float>(frequencies.radians), at::kFloat), positions.device());
  const at::Tensor angles = positions.to(at::kFloat).unsqueeze(1) * radians;
  return {at::cos(angles) * frequencies.magnitude, at::sin(angles) * frequencies.magnitude};
}

ExpertsOutput experts(const at::Tensor& rows, const at::Tensor& counts, const at::Tensor& gate_up,
                      const at::Tensor& down) {
  const ExpertRows by(counts, rows.size(0));
  ExpertsOutput out;
  out.products = by.product(by.by_expert(rows), gate_up.transpose(1, 2));
  const at::Tensor activated = at::empty({rows.size(0), down.size(2)}, rows.options());
  silu_multiply_out(activated, out.products, by.row_count());
  out.rows = by.by_source(by.product(activated, down.transpose(1, 2)));
  return out;
}

at::Tensor experts_products(const at::Tensor& rows, const at::Tensor& counts,
                            const at::Tensor& gate_up) {
  const ExpertRows by(counts, rows.size(0));
  return by.product(by.by_expert(rows), gate_up.transpose(1, 2));
}

at::Tensor to_device(const at::Tensor& host, at::Device device) {
  if (host.device() == device) return host;
  return host.pin_memory().to(device, /*non_blocking=*/true);
}

// Slots outside `out` go to a row behind its last.
void permute_by_inverse_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& inverse,
                            int64_t top_k, int64_t first_row) {
  const int64_t rows = out.size(0);
  const at::Tensor row = inverse - first_row;
  const at::Tensor outside = row.lt(0).logical_or_(row.ge(rows));
  at::Tensor spacious = at::empty({rows + 1, x.size(1)}, x.options());
  spacious.narrow(0, 0, rows).copy_(out);
  spacious.index_copy_(0, row.masked_fill(outside, rows), x.repeat_interleave(top_k, 0));
  at::Tensor(out).copy_(spacious.narrow(0, 0, rows));
}

at::Tensor unpermute(const at::Tensor& rows, const at::Tensor& inverse, const at::Tensor& weights) {
  const int64_t tokens = weights.size(0), top_k = weights.size(1);
  const at::Tensor slots = inverse.view({tokens, top_k});
  const at::Tensor absent = slots.lt(0);
  at::Tensor sum = at::zeros({tokens, rows.size(1)}, rows.options().dtype(at::kFloat));
  for (int64_t slot = 0; slot < top_k; ++slot) {
    const at::Tensor chosen =
        rows.index_select(0, slots.select(1, slot).clamp_min(0)).to(at::kFloat);
    sum = sum + (chosen * weights.narrow(1, slot, 1)).masked_fill(absent.narrow(1, slot, 1), 0);
  }
  return sum.to(rows.scalar_type());
}

namespace {

// x [T, H] as [T, blocks, 128], zeros behind its end, fp32.
at::Tensor in_blocks(const at::Tensor& x, int64_t blocks) {
  at::Tensor padded =
      at::zeros({x.size(0), blocks * PacketLayout::block}, x.options().dtype(at::kFloat));
  padded.narrow(1, 0, x.size(1)).copy_(x);
  return padded.view({x.size(0), blocks, PacketLayout::block});
}

}  // namespace

void quantize_out(const at::Tensor& values, const at::Tensor& scales, const at::Tensor& x) {
  const at::Tensor wide = in_blocks(x, scales.size(1));
  const at::Tensor largest = wide.abs().amax(-1).clamp_min(1e-30);
  at::Tensor(scales).copy_(largest / 448.0);
  const at::Tensor scaled = (wide * largest.reciprocal().mul(448.0).unsqueeze(-1)).flatten(1);
  at::Tensor(values).copy_(scaled.narrow(1, 0, x.size(1)));
}

void dequantize_out(const at::Tensor& out, const at::Tensor& values, const at::Tensor& scales) {
  const at::Tensor wide = in_blocks(values, scales.size(1)) * scales.unsqueeze(-1);
  at::Tensor(out).copy_(wide.flatten(1).narrow(1, 0, out.size(1)));
}

}  // namespace farskip::tensor_ops
