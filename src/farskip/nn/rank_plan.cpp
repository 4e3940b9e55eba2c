#include "farskip/nn/rank_plan.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <tuple>

#include "farskip/nn/check.h"
#include "farskip/nn/permutation.h"

namespace farskip {
namespace {

// Sorts rows by key, stable: `keys` int64 of any shape, each below `count`.
DispatchPlan sort_by_key(const at::Tensor& keys, int64_t count) {
  return make_plan(keys.reshape({-1, 1}), at::arange(count, keys.options()));
}

// table[ids], in the shape of ids.
at::Tensor look_up(const at::Tensor& table, const at::Tensor& ids) {
  return table.index_select(0, ids.flatten()).view_as(ids);
}

}  // namespace

RankPlan make_rank_plan(const at::Tensor& experts, const ExpertHomes& homes, int64_t ranks,
                        int64_t chunks) {
  require_shape(experts, {-1, -1}, "expert ids");
  require_dtype(experts, at::kLong, "expert ids");
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

RowChoices row_choices(const at::Tensor& experts, const at::Tensor& weights,
                       const at::Tensor& slots, const ExpertHomes& homes) {
  const at::Tensor token = slots.floor_divide(experts.size(1));
  const at::Tensor chosen = experts.index_select(0, token);
  const at::Tensor goes_to = homes.rank.index_select(0, experts.flatten().index_select(0, slots));
  const at::Tensor there = look_up(homes.rank, chosen) == goes_to.unsqueeze(1);
  return {.experts = at::where(there, look_up(homes.local, chosen), -1),
          .weights = weights.index_select(0, token)};
}

SlotPlaces place_slots(const at::Tensor& experts, int64_t local_experts) {
  require_shape(experts, {-1, -1}, "received experts");
  require_dtype(experts, at::kLong, "received experts");
  // Choices on other ranks sort before the first expert.
  const DispatchPlan plan = sort_by_key(experts + 1, local_experts + 1);
  const at::Tensor places = plan.inverse - plan.counts.narrow(0, 0, 1);
  return {.places = places.masked_fill(experts.flatten() == -1, -1),
          .counts = plan.counts.narrow(0, 1, local_experts)};
}

at::Tensor return_order(const at::Tensor& experts, const at::Tensor& sources, int64_t local_experts,
                        int64_t ranks, int64_t chunks) {
  // Of expert e the one c with c n / chunks <= e < (c + 1) n / chunks, rounded down, as even_cut
  // has it; -1 of none.
  const at::Tensor chunk = ((experts + 1) * chunks - 1).floor_divide(local_experts);
  return sort_by_key(chunk.amax(1) * ranks + sources, chunks * ranks).order;
}

}  // namespace farskip
