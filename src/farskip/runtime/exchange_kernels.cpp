#include <algorithm>
#include <utility>

#include "farskip/runtime/kernels.h"
#include "farskip/runtime/routing_state.h"
#include "farskip/runtime/row_counts.h"

namespace farskip {
namespace {

bool per_rank(const Op& op) { return op.attributes.dispatch == DispatchForm::per_rank; }

// Rows by rank of the placement, as the whole group counts them: ranks of other sets get none.
std::vector<int64_t> over_group(const Group& group, const std::vector<int64_t>& rows) {
  const auto ranks = static_cast<int>(rows.size());
  std::vector<int64_t> all(static_cast<size_t>(group.size()), 0);
  std::ranges::copy(rows, all.begin() + group.rank() / ranks * ranks);
  return all;
}

// Every rank tells every other how many rows it will send for each of its experts.
Work launch_expert_counts(const KernelContext& context, Group& group, Inputs in, Outputs out) {
  const ExpertLayout& layout = layout_of(context);
  std::vector<int64_t> sent;
  for (int rank = 0; rank < layout.ranks(); ++rank) sent.push_back(layout.experts_of(rank));
  std::vector<int64_t> received(sent.size(), out[0].size(1));
  received = over_group(group, received);
  sent = over_group(group, sent);
  return group.all_to_all(out[0].view({-1}), in[0], received, sent, context.op.id, context.ready);
}

Work launch_counts(const KernelContext& context, Group& group, Inputs in, Outputs out) {
  if (!per_rank(context.op)) return launch_expert_counts(context, group, in, out);
  const std::vector<int64_t> one_each =
      over_group(group, std::vector<int64_t>(context.placement.ranks(), 1));
  return group.all_to_all(out[0], in[0], one_each, one_each, context.op.id, context.ready);
}

int64_t bind_rank_rows(const Symbol& symbol, const at::Tensor& own, const at::Tensor& received) {
  const bool sends =
      symbol.kind == Symbol::Kind::sent_rows || symbol.kind == Symbol::Kind::home_rows;
  const bool dispatched =
      symbol.kind == Symbol::Kind::sent_rows || symbol.kind == Symbol::Kind::received_rows;
  const RankRows what = symbol.kind == Symbol::Kind::expert_rows ? RankRows::computed
                        : dispatched                             ? RankRows::dispatched
                                                                 : RankRows::returned;
  const at::Tensor& counts = sends ? own : received;
  // A whole is all chunks, of which it knows nothing.
  const bool whole = symbol.chunks == 1;
  return whole ? rank_rows_before(counts, what, static_cast<int>(counts.size(1) / 3))
               : rank_rows(counts, what, symbol.chunk).total;
}

int64_t bind_rows(const KernelContext& context, const Symbol& symbol, Inputs in, Inputs out) {
  if (per_rank(context.op)) return bind_rank_rows(symbol, in[0], out[0]);
  const ExpertLayout& layout = routing_state_of(context).layout(context.placement, symbol.chunks);
  if (symbol.kind == Symbol::Kind::received_rows) {
    return received_rows(layout, out[0], symbol.chunk, context.rank).total;
  }
  // A whole has no chunks of its own, and sums over any layout are the same.
  return sent_rows(layout, in[0], symbol.chunk).total;
}

// Rows of one chunk: out of their tokens' rank, and into their experts' rank. `in` of dispatch and
// combine: rows, rows to every expert or rank, rows from every rank.
struct Moved {
  RowCounts out, in;
};
Moved moved_rows(const KernelContext& context, int chunk) {
  const at::Tensor &own = context.host_in[1], &received = context.host_in[2];
  if (per_rank(context.op)) {
    const RankRows what =
        context.op.kind == OpKind::dispatch ? RankRows::dispatched : RankRows::returned;
    return {rank_rows(own, what, chunk), rank_rows(received, what, chunk)};
  }
  const ExpertLayout& layout = layout_of(context);
  return {sent_rows(layout, own, chunk), received_rows(layout, received, chunk, context.rank)};
}

Work launch_dispatch(const KernelContext& context, Group& group, Inputs in, Outputs out) {
  const int chunk = context.op.attributes.chunk;
  int64_t first = 0;
  for (int before = 0; before < chunk; ++before) first += moved_rows(context, before).out.total;
  const Moved rows = moved_rows(context, chunk);
  return group.all_to_all(out[0], in[0].narrow(0, first, rows.out.total),
                          over_group(group, rows.in.by_rank), over_group(group, rows.out.by_rank),
                          context.op.id, context.ready);
}

// Dispatch backwards.
Work launch_combine(const KernelContext& context, Group& group, Inputs in, Outputs out) {
  const Moved rows = moved_rows(context, context.op.attributes.chunk);
  return group.all_to_all(out[0], in[0], over_group(group, rows.out.by_rank),
                          over_group(group, rows.in.by_rank), context.op.id, context.ready);
}

}  // namespace

void add_exchange_kernels(KernelTable& table) {
  table.add(OpKind::counts, {.launch = launch_counts, .bind = bind_rows});
  table.add(OpKind::dispatch, launch_dispatch);
  table.add(OpKind::combine, launch_combine);
  table.add(OpKind::combine_gradient, launch_dispatch);
  table.add(OpKind::dispatch_gradient, launch_combine);
}

}  // namespace farskip
