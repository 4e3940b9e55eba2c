#include <ATen/ops/index_select.h>
#include <ATen/ops/ones.h>

#include <string>
#include <utility>

#include "farskip/base/error.h"
#include "farskip/nn/experts.h"
#include "farskip/nn/packets.h"
#include "farskip/nn/permutation.h"
#include "farskip/nn/rank_plan.h"
#include "farskip/nn/router.h"
#include "farskip/runtime/kernels.h"
#include "farskip/runtime/routing_state.h"

namespace farskip {
namespace {

Routing replayed(const KernelContext& context, int64_t first_token, int64_t tokens) {
  const Attributes& a = context.op.attributes;
  const RoutingRecord* replay = routing_state_of(context).options().replay;
  const auto found = replay ? replay->find(a.layer) : RoutingRecord::const_iterator();
  const bool known = replay && found != replay->end();
  if (!known || found->second.experts.dim() != 2 || found->second.experts.size(1) != a.top_k ||
      found->second.experts.size(0) < first_token + tokens) {
    throw Error("the replayed routing does not fit the step",
                {.where = describe(context.op),
                 .expected = std::to_string(first_token + tokens) + " tokens or more, " +
                             std::to_string(a.top_k) + " experts each",
                 .found = known ? c10::str(found->second.experts.sizes()) : "none"});
  }
  return {found->second.experts.narrow(0, first_token, tokens),
          found->second.weights.narrow(0, first_token, tokens)};
}

// `logits`: where the router's logits go, if it has any.
Routing choose(const KernelContext& context, Inputs in, at::Tensor& logits) {
  const Attributes& a = context.op.attributes;
  RoutingState& state = routing_state_of(context);
  const int64_t first = state.options().first_token + context.first_token;
  const int64_t tokens = in[0].size(0);
  switch (a.routing) {
    case RoutingMode::balanced:
      return state.balanced(tokens, a.experts, a.top_k, first, in[0].device());
    case RoutingMode::replay:
      return to_device(replayed(context, first, tokens), in[0].device());
    case RoutingMode::model:
      break;
  }
  logits = router_logits(context.model.router, in[0], in[1]);
  return choose_experts(context.model.router, logits, in.size() > 2 ? in[2] : at::Tensor());
}

void run_router(const KernelContext& context, Inputs in, Outputs out) {
  at::Tensor logits;
  Routing routing = choose(context, in, logits);
  RoutingState& state = routing_state_of(context);
  if (state.options().record) {
    state.record(context.op.attributes.layer, context.op.attributes.micro_batch, routing);
  }
  deliver(out[0], std::move(routing.experts));
  deliver(out[1], std::move(routing.weights));
  if (out.size() > 2) deliver(out[2], std::move(logits));
}

void run_expert_loads(const KernelContext&, Inputs in, Outputs out) {
  expert_loads_out(out[0], in);
}

void run_plan(const KernelContext& context, Inputs in, Outputs out) {
  RoutingState& state = routing_state_of(context);
  const Attributes& a = context.op.attributes;
  if (a.dispatch == DispatchForm::per_rank) {
    const ExpertHomes& homes = state.homes(context.placement, a.chunks, in[0].device());
    RankPlan plan = make_rank_plan(in[0], homes, a.ranks, a.chunks);
    deliver(out[0], std::move(plan.order));
    deliver(out[1], std::move(plan.inverse));
    deliver(out[2], std::move(plan.counts));
    return;
  }
  DispatchPlan plan =
      make_plan(in[0], state.positions(context.placement, a.chunks, in[0].device()));
  deliver(out[0], std::move(plan.order));
  deliver(out[1], std::move(plan.inverse));
  // Ranks exchange counts by rank, which is how rows lie where there are no chunks.
  if (a.chunks > 1) {
    plan.counts = at::index_select(
        plan.counts, 0, state.positions_by_rank(context.placement, a.chunks, in[0].device()));
  }
  deliver(out[2], std::move(plan.counts));
}

void run_permute(const KernelContext& context, Inputs in, Outputs out) {
  const Attributes& a = context.op.attributes;
  if (!sends_packets(a)) return permute_by_inverse_out(out[0], in[0], in[1], a.top_k);
  const PacketLayout layout = packet_layout(a, in[0].size(1));
  const at::Tensor slots = in[1].narrow(0, 0, out[0].size(0));
  pack_rows(out[0], layout, in[0], slots, a.top_k);
  if (layout.choices == 0) return;
  const ExpertHomes& homes =
      routing_state_of(context).homes(context.placement, a.chunks, in[0].device());
  const RowChoices choices = row_choices(in[3], in[4], slots, homes);
  packet_experts(out[0], layout).copy_(choices.experts);
  packet_weights(out[0], layout).copy_(choices.weights);
}

// in: received rows, rows received per rank and local expert, weights of the chunk; or tokens, rows
// of each expert, weights, and the slot that each row holds.
void run_experts(const KernelContext& context, Inputs in, Outputs out) {
  const at::Tensor counts = counts_of_chunk(context, in[1]);
  if (in.size() > 4) {
    const int64_t top_k = context.op.attributes.top_k;
    return deliver(out[0], experts_of_tokens(in[0], in[4], top_k, counts, in[2], in[3]));
  }
  if (out.size() == 1) return deliver(out[0], experts(in[0], counts, in[2], in[3]));
  ExpertsOutput made = experts_saving(in[0], counts, in[2], in[3]);
  deliver(out[0], std::move(made.rows));
  deliver(out[1], std::move(made.products));
}

// Rows that were weighed where their experts are, are just added.
void run_unpermute(const KernelContext& context, Inputs in, Outputs out) {
  const int64_t top_k = context.op.attributes.top_k;
  const at::Tensor weights =
      in.size() > 2 ? in[2]
                    : at::ones({in[1].size(0) / top_k, top_k}, in[1].options().dtype(at::kFloat));
  unpermute_out(out[0], in.first(1), in[1], weights);
}

}  // namespace

at::Tensor counts_of_chunk(const KernelContext& context, const at::Tensor& counts) {
  if (counts.dim() == 1) return counts.unsqueeze(0);
  const Range local = layout_of(context).local_experts(context.op.attributes.chunk, context.rank);
  return counts.narrow(1, local.first, local.size());
}

void add_routing_kernels(KernelTable& table) {
  // What is replayed comes from the host.
  const auto chooses = [](const Op& op, at::ScalarType) {
    return op.attributes.routing != RoutingMode::replay;
  };
  // Grouped products of other dtypes wait for the counts.
  const auto grouped = [](const Op&, at::ScalarType made) { return made == at::kBFloat16; };
  table.add(OpKind::router, recordable(making(run_router), chooses));
  table.add(OpKind::expert_loads, recordable({.kernel = run_expert_loads}));
  table.add(OpKind::plan, recordable(making(run_plan)));
  table.add(OpKind::permute, recordable({.kernel = run_permute}));
  table.add(OpKind::unpermute, taking_spare_rows(recordable({.kernel = run_unpermute})));
  table.add(OpKind::experts, taking_spare_rows(recordable(making(run_experts), grouped)));
}

}  // namespace farskip
