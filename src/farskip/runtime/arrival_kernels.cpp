#include <ATen/ops/cat.h>
#include <ATen/ops/repeat_interleave.h>

#include <optional>
#include <string>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/nn/packets.h"
#include "farskip/nn/permutation.h"
#include "farskip/nn/rank_plan.h"
#include "farskip/runtime/kernels.h"
#include "farskip/runtime/routing_state.h"
#include "farskip/runtime/row_counts.h"

// What the experts' rank does with packets before and behind its experts.
namespace farskip {
namespace {

// Packets of the chunks so far, one after the other, in dispatch form per-rank.
struct Arrived {
  at::Tensor experts;  // int64 [rows, top_k], local, -1: on another rank
  at::Tensor weights;  // fp32 [rows, top_k]
  at::Tensor sources;  // int64 [rows]: the rank that each came from
};

// `counts` int64 [ranks, 3 * chunks], on the packets' device.
Arrived read_packets(Inputs packets, const PacketLayout& layout, const at::Tensor& counts) {
  const at::Tensor rows_from = rank_row_columns(counts, RankRows::dispatched);
  std::vector<at::Tensor> experts, weights, sources;
  for (size_t chunk = 0; chunk < packets.size(); ++chunk) {
    experts.push_back(packet_experts(packets[chunk], layout));
    weights.push_back(packet_weights(packets[chunk], layout));
    // With the size known, nothing waits for a device.
    const at::Tensor each = rows_from.select(1, static_cast<int64_t>(chunk)).contiguous();
    sources.push_back(at::repeat_interleave(each, std::optional<int64_t>(packets[chunk].size(0))));
  }
  return {at::cat(experts).to(at::kLong), at::cat(weights), at::cat(sources)};
}

// On a CPU packets are looked at: a peer whose packets are not those that it counted would leave
// rows unwritten.
void require_counted(const at::Tensor& counts, int64_t expected, const Op& op) {
  if (!counts.is_cpu() || counts.sum().item<int64_t>() == expected) return;
  throw Error("received packets are not those that were counted",
              {.where = describe(op),
               .expected = std::to_string(expected) + " rows for the experts of the chunk",
               .found = std::to_string(counts.sum().item<int64_t>())});
}

// out: rows by expert, rows per expert, and of the rows that return with this chunk where what
// experts make of them lies, counted over the chunks so far, and their weights.
void arrange_for_sums(const KernelContext& context, Inputs in, Outputs out) {
  const Attributes& a = context.op.attributes;
  const PacketLayout layout = packet_layout(a, out[0].size(1));
  const Inputs packets = in.subspan(1);
  const Arrived arrived = read_packets(packets, layout, in[0]);
  const auto experts = static_cast<int64_t>(context.placement.experts_of(context.rank).size());
  const SlotPlaces slots = place_slots(arrived.experts, experts);

  const Range local = layout_of(context).local_experts(a.chunk, context.rank);
  out[1].copy_(slots.counts.narrow(0, local.first, local.size()));
  require_counted(out[1], out[0].size(0), context.op);
  const int64_t first = rank_rows_before(context.host_in[0], RankRows::computed, a.chunk);
  unpack_by_inverse_out(out[0], packets, layout, slots.places, a.top_k, first);

  const at::Tensor order =
      return_order(arrived.experts, arrived.sources, experts, a.ranks, a.chunks);
  const int64_t before = rank_rows_before(context.host_in[0], RankRows::returned, a.chunk);
  const at::Tensor returned = order.narrow(0, before, out[3].size(0));
  out[2].copy_(slots.places.view({-1, a.top_k}).index_select(0, returned).flatten());
  out[3].copy_(arrived.weights.index_select(0, returned));
}

// in: rows received from every rank, packets; of per-rank dispatch those of the chunks so far.
void run_arrange(const KernelContext& context, Inputs in, Outputs out) {
  const Attributes& a = context.op.attributes;
  if (a.dispatch == DispatchForm::per_rank) return arrange_for_sums(context, in, out);
  unpack_rows_out(out[0], in[1], packet_layout(a, out[0].size(1)));
}

// in: places, weights, expert rows of the chunks so far.
void run_weigh(const KernelContext&, Inputs in, Outputs out) {
  deliver(out[0], unpermute(in.subspan(2), in[0], in[1]));
}

}  // namespace

void add_arrival_kernels(KernelTable& table) {
  table.add(OpKind::arrange, run_arrange);
  table.add(OpKind::weigh, {.kernel = run_weigh, .makes_outputs = true});
}

}  // namespace farskip
