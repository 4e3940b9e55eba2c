#include <ATen/ops/cat.h>
#include <c10/core/StreamGuard.h>

#include <algorithm>
#include <string>
#include <utility>

#include "farskip/base/error.h"
#include "farskip/nn/experts.h"
#include "farskip/nn/permutation.h"
#include "farskip/nn/router.h"
#include "farskip/nn/tensor_ops.h"
#include "farskip/runtime/kernels.h"
#include "farskip/runtime/routing_state.h"

namespace farskip {
namespace {

RoutingState& state_of(const KernelContext& context) {
  auto* state = dynamic_cast<RoutingState*>(context.state);
  if (!state) {
    throw Error("routing kernels need a RoutingState",
                {.where = describe(context.op), .found = "none in the executor's options"});
  }
  return *state;
}

const ExpertLayout& layout_of(const KernelContext& context) {
  return state_of(context).layout(context.placement, context.op.attributes.chunks);
}

Routing replayed(const KernelContext& context, int64_t first_token, int64_t tokens) {
  const Attributes& a = context.op.attributes;
  const RoutingRecord* replay = state_of(context).options().replay;
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

Routing on_device(const Routing& routing, const at::Tensor& like) {
  return {tensor_ops::to_device_of(like, routing.experts),
          tensor_ops::to_device_of(like, routing.weights)};
}

Routing choose(const KernelContext& context, Inputs in) {
  const Attributes& a = context.op.attributes;
  RoutingState& state = state_of(context);
  const int64_t first = state.options().first_token + context.first_token;
  const int64_t tokens = in[0].size(0);
  switch (a.routing) {
    case RoutingMode::balanced:
      return state.balanced(tokens, a.experts, a.top_k, first, in[0].device());
    case RoutingMode::replay:
      return on_device(replayed(context, first, tokens), in[0]);
    case RoutingMode::model:
      break;
  }
  return route(context.model.router, in[0], in[1], in.size() > 2 ? in[2] : at::Tensor());
}

void run_router(const KernelContext& context, Inputs in, Outputs out) {
  Routing routing = choose(context, in);
  RoutingState& state = state_of(context);
  if (state.options().record) {
    state.record(context.op.attributes.layer, context.op.attributes.micro_batch, routing);
  }
  deliver(out[0], std::move(routing.experts));
  deliver(out[1], std::move(routing.weights));
}

void run_plan(const KernelContext& context, Inputs in, Outputs out) {
  RoutingState& state = state_of(context);
  const int chunks = context.op.attributes.chunks;
  DispatchPlan plan = make_plan(in[0], state.positions(context.placement, chunks, in[0].device()));
  deliver(out[0], std::move(plan.order));
  deliver(out[1], std::move(plan.inverse));
  deliver(out[2], std::move(plan.counts));
}

// What `make` computes on the group's stream behind `ready`, and when that is there: an input that
// a launch makes itself must not wait for all that the compute lane has queued.
template <typename Make>
std::pair<at::Tensor, Event> on_stream_of(const Group& group, const Event& ready, Make make) {
  if (group.device().is_cpu()) return {make(), Event()};
  ready.block(group.stream());
  const c10::StreamGuard guard(group.stream());
  at::Tensor made = make();
  return {std::move(made), Event::record(group.stream())};
}

// Every rank tells every other how many rows it will send for each of its experts, in the order of
// the receiver's local experts, whatever the chunks.
Work launch_counts(const KernelContext& context, Group& group, Inputs in, Outputs out) {
  const ExpertLayout& layout = layout_of(context);
  std::vector<at::Tensor> blocks;
  std::vector<int64_t> sent, received;
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    int64_t experts = 0;
    for (int chunk = 0; chunk < layout.chunks(); ++chunk) {
      const Range range = layout.positions(chunk, rank);
      blocks.push_back(in[0].narrow(0, range.first, range.size()));
      experts += range.size();
    }
    sent.push_back(experts);
    received.push_back(out[0].size(1));
  }
  // Without chunks the rows lie by rank already.
  if (layout.chunks() == 1) {
    return group.all_to_all(out[0].view({-1}), in[0], received, sent, context.op.id, context.ready);
  }
  const auto [by_rank, ready] = on_stream_of(group, context.ready, [&] { return at::cat(blocks); });
  return group.all_to_all(out[0].view({-1}), by_rank, received, sent, context.op.id, ready);
}

int64_t bind_rows(const KernelContext& context, const Symbol& symbol, Inputs in, Inputs out) {
  const ExpertLayout& layout = state_of(context).layout(context.placement, symbol.chunks);
  if (symbol.kind == Symbol::Kind::received_rows) {
    return received_rows(layout, out[0], symbol.chunk, context.rank).total;
  }
  // A whole has no chunks of its own, and sums over any layout are the same.
  return sent_rows(layout, in[0], symbol.chunk).total;
}

void run_permute(const KernelContext& context, Inputs in, Outputs out) {
  deliver(out[0], permute(in[0], in[1], context.op.attributes.top_k));
}

// in: all rows to send, rows per position, rows received per rank and local expert.
Work launch_dispatch(const KernelContext& context, Group& group, Inputs in, Outputs out) {
  const ExpertLayout& layout = layout_of(context);
  const int chunk = context.op.attributes.chunk;
  int64_t first = 0;
  for (int before = 0; before < chunk; ++before) {
    first += sent_rows(layout, context.host_in[1], before).total;
  }
  const RowCounts sent = sent_rows(layout, context.host_in[1], chunk);
  const RowCounts received = received_rows(layout, context.host_in[2], chunk, context.rank);
  return group.all_to_all(out[0], in[0].narrow(0, first, sent.total), received.by_rank,
                          sent.by_rank, context.op.id, context.ready);
}

// in: received rows, rows received per rank and local expert, weights of the chunk. A single rank
// has its own rows and how many there are per expert.
void run_experts(const KernelContext& context, Inputs in, Outputs out) {
  if (in[1].dim() == 1) return deliver(out[0], experts(in[0], in[1].unsqueeze(0), in[2], in[3]));
  const Range local = layout_of(context).local_experts(context.op.attributes.chunk, context.rank);
  deliver(out[0], experts(in[0], in[1].narrow(1, local.first, local.size()), in[2], in[3]));
}

// Dispatch backwards: in: expert rows, and the counts as dispatch has them.
Work launch_combine(const KernelContext& context, Group& group, Inputs in, Outputs out) {
  const ExpertLayout& layout = layout_of(context);
  const int chunk = context.op.attributes.chunk;
  const RowCounts sent = sent_rows(layout, context.host_in[1], chunk);
  const RowCounts received = received_rows(layout, context.host_in[2], chunk, context.rank);
  return group.all_to_all(out[0], in[0], sent.by_rank, received.by_rank, context.op.id,
                          context.ready);
}

void run_unpermute(const KernelContext&, Inputs in, Outputs out) {
  deliver(out[0], unpermute(in[0], in[1], in[2]));
}

void check_routing(const Op& op) {
  if (op.attributes.dispatch != DispatchForm::per_expert) {
    throw UnsupportedError("there is no kernel for this dispatch form",
                           {.where = describe(op),
                            .expected = to_string(DispatchForm::per_expert),
                            .found = to_string(op.attributes.dispatch)});
  }
  if (op.attributes.wire == DType::float8_e4m3) {
    throw UnsupportedError("rows can not be sent in this dtype",
                           {.where = describe(op),
                            .expected = "the dtype of the activations",
                            .found = to_string(op.attributes.wire)});
  }
}

}  // namespace

void add_routing_kernels(KernelTable& table) {
  auto making = [](Kernel kernel) {
    return KernelEntry{.kernel = kernel, .check = check_routing, .makes_outputs = true};
  };
  table.add(OpKind::router, making(run_router));
  table.add(OpKind::plan, making(run_plan));
  table.add(OpKind::permute, making(run_permute));
  table.add(OpKind::unpermute, making(run_unpermute));
  table.add(OpKind::experts, making(run_experts));
  table.add(OpKind::counts, {.launch = launch_counts, .bind = bind_rows, .check = check_routing});
  table.add(OpKind::dispatch, {.launch = launch_dispatch, .check = check_routing});
  table.add(OpKind::combine, {.launch = launch_combine, .check = check_routing});
}

}  // namespace farskip
