#include "farskip/graph/recompute.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/graph/copier.h"
#include "farskip/graph/rewrite_error.h"

namespace farskip {
namespace {

constexpr std::array kinds = {RecomputeKind::none, RecomputeKind::attention, RecomputeKind::experts,
                              RecomputeKind::all, RecomputeKind::all_and_dispatch};

// What ops belong to, and what an output of the layer comes from.
enum class Block { none, attention, shared, routed };

// The block whose gradient ops begin with an op of this kind: its first input is the gradient by
// the block's output.
Block block_that_begins_with(OpKind kind) {
  switch (kind) {
    case OpKind::linear_gradient:
      return Block::attention;
    case OpKind::mlp_gradient:
      return Block::shared;
    case OpKind::unpermute_gradient:
      return Block::routed;
    default:
      return Block::none;
  }
}

class Recompute {
 public:
  Recompute(const Graph& graph, RecomputeKind kind)
      : graph_(graph),
        kind_(kind),
        loss_(graph.value(graph.outputs()[0]).producer),
        copier_(graph, true, "recompute " + std::string(to_string(kind))) {
    for (const Op& op : backward_ops()) {
      const Block block = block_that_begins_with(op.kind);
      if (block == Block::none) continue;
      begins_.try_emplace({op.attributes.layer, block}, graph.value(op.inputs[0]).producer);
    }
  }

  Graph run() {
    for (const Op& op : graph_.ops().first(loss_ + 1)) copier_.copy(op);
    for (const Op& op : backward_ops()) {
      for (ValueId id : op.inputs) compute_again(id);
      copier_.copy(op);
    }
    return copier_.finish();
  }

 private:
  std::span<const Op> backward_ops() const { return graph_.ops().subspan(loss_ + 1); }

  Block block_of(const Op& op) const {
    switch (op.kind) {
      case OpKind::attention_prepare:
      case OpKind::attention_core:
        return Block::attention;
      case OpKind::shared_experts:
      case OpKind::dense_mlp:
        return Block::shared;
      case OpKind::permute:
      case OpKind::dispatch:
      case OpKind::arrange:
      case OpKind::experts:
      case OpKind::router:
        return Block::routed;
      case OpKind::norm: {  // that of its readers; of several, the one whose gradient comes first
        Block block = Block::none;
        for (OpId reader : graph_.consumers(op.outputs[0])) {
          if (reader <= loss_) block = std::max(block, block_of(graph_.op(reader)));
        }
        return block;
      }
      default:
        return Block::none;
    }
  }

  bool is_chosen(const Op& op) const {
    if (op.kind == OpKind::router) return false;
    if (op.kind == OpKind::dispatch) return kind_ == RecomputeKind::all_and_dispatch;
    const Block block = block_of(op);
    if (block == Block::none) return false;
    const RecomputeKind needed =
        block == Block::attention ? RecomputeKind::attention : RecomputeKind::experts;
    return kind_ == needed || kind_ >= RecomputeKind::all;
  }

  bool backward_reads(ValueId id) const {
    const auto readers = graph_.consumers(id);
    return !readers.empty() && readers.back() > loss_;
  }

  // From here on, `id` stands for what a repeated op makes, if its producer is to be repeated.
  void compute_again(ValueId id) {
    const OpId producer = graph_.value(id).producer;
    if (producer == none || producer > loss_ || done_.count(id) != 0) return;
    const Op& op = graph_.op(producer);
    if (is_chosen(op)) repeat(op);
  }

  void repeat(const Op& op) {
    OpKind kind = op.kind;
    std::vector<ValueId> inputs = op.inputs, outputs = op.outputs;
    const bool has_products =
        kind == OpKind::experts || kind == OpKind::shared_experts || kind == OpKind::dense_mlp;
    if (has_products && !backward_reads(outputs[0])) {
      kind = kind == OpKind::experts ? OpKind::experts_products : OpKind::mlp_products;
      inputs.pop_back();  // down
      outputs = {outputs[1]};
    }
    for (ValueId id : inputs) compute_again(id);
    const std::vector<ValueId> mapped = copier_.map(inputs);
    std::vector<ValueId> again;
    for (ValueId id : outputs) {
      again.push_back(copier_.builder().add_value(graph_.value(id)));
      copier_.bind(id, again.back());
      done_.insert(id);
    }
    Attributes attributes = op.attributes;
    attributes.again = true;
    const auto begin = copier_.ops_for(begins_.at({attributes.layer, block_of(op)}));
    copier_.builder().add_op(kind, attributes, mapped, again, {begin.begin(), begin.end()});
  }

  const Graph& graph_;
  const RecomputeKind kind_;
  const OpId loss_;  // the last op of the forward pass
  GraphCopier copier_;
  std::map<std::pair<int, Block>, OpId> begins_;  // by layer: what makes the gradient by its output
  std::set<ValueId> done_;                        // that repeated ops make now
};

}  // namespace

std::span<const RecomputeKind> recompute_kinds() { return kinds; }

const char* to_string(RecomputeKind kind) {
  constexpr std::array names = {"none", "attention", "experts", "all", "all-and-dispatch"};
  return names.at(static_cast<size_t>(kind));
}

RecomputeKind recompute_kind(std::string_view name) {
  const auto found = std::ranges::find(kinds, name, [](RecomputeKind k) { return to_string(k); });
  if (found != kinds.end()) return *found;
  std::string names;
  for (RecomputeKind kind : kinds)
    names += (names.empty() ? "" : ", ") + std::string(to_string(kind));
  throw UsageError("unknown kind of recomputation",
                   {.where = "--recompute", .expected = names, .found = std::string(name)});
}

Graph recompute(const Graph& backward, RecomputeKind kind) {
  const auto outputs = backward.outputs();
  const OpId loss = !outputs.empty() ? backward.value(outputs[0]).producer : none;
  const bool differentiated = loss != none && backward.op(loss).kind == OpKind::loss &&
                              loss + 1 < static_cast<OpId>(backward.ops().size());
  require_for_rewrite(differentiated, "recompute", "a step with a backward pass",
                      backward.description());
  require_for_rewrite(backward.micro_batches() == 1, "recompute", "a graph before other rewrites",
                      backward.description());
  for (const Op& op : backward.ops()) {
    const Attributes& a = op.attributes;
    require_for_rewrite(a.chunks == 1 && a.pieces == 1 && !a.again, "recompute",
                        "a graph before other rewrites", backward.description());
  }
  if (kind == RecomputeKind::none) return backward;
  return Recompute(backward, kind).run();
}

}  // namespace farskip
