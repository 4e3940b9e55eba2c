#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "farskip/graph/copier.h"
#include "farskip/graph/rewrite.h"
#include "farskip/graph/rewrite_error.h"
#include "farskip/model/routing_statistics.h"

namespace farskip {
namespace {

class ExpertChunks {
 public:
  ExpertChunks(const Graph& graph, int chunks)
      : graph_(graph), chunks_(chunks), copier_(graph, true, "chunks " + std::to_string(chunks)) {}

  Graph run() {
    for (const Op& op : graph_.ops()) {
      switch (op.kind) {
        case OpKind::plan:
        case OpKind::counts:
        case OpKind::permute:
          copier_.copy(op, with_chunk(op, 0));
          break;
        case OpKind::dispatch:
          split_dispatch(op);
          break;
        case OpKind::experts:
          split_experts(op);
          break;
        case OpKind::combine:
          split_combine(op);
          break;
        default:
          copier_.copy(op);
      }
    }
    return copier_.finish();
  }

 private:
  Attributes with_chunk(const Op& op, int chunk) const {
    Attributes attributes = op.attributes;
    attributes.chunk = chunk;
    attributes.chunks = chunks_;
    return attributes;
  }

  // Share of all rows that move with this chunk. A per-rank row travels with the first chunk that
  // needs it and returns with the last.
  double share(const Op& op, int chunk, bool back) const {
    const Attributes& a = op.attributes;
    if (a.dispatch == DispatchForm::per_expert) return 1.0 / chunks_;
    const int part = back ? chunks_ - 1 - chunk : chunk;
    auto reached = [&](int parts) {
      return distinct_ranks_of_part(a.experts, a.top_k, a.ranks, parts, chunks_);
    };
    return (reached(part + 1) - reached(part)) / reached(chunks_);
  }

  ValueId rows_of_chunk(ValueId old, int chunk, double share) {
    Value value = graph_.value(old);
    Symbol symbol = graph_.symbol(value.shape.at(0).symbol);
    symbol.chunk = chunk;
    symbol.chunks = chunks_;
    symbol.expected *= share;
    value.shape[0].symbol = copier_.builder().add_symbol(symbol);
    return copier_.builder().add_value(value);
  }

  ValueId experts_of_chunk(ValueId old, int chunk) {
    Value value = graph_.value(old);
    SymbolId& symbol = local_experts_[chunk];
    if (symbol == none) {
      Symbol copy = graph_.symbol(value.shape.at(0).symbol);
      copy.chunk = chunk;
      copy.chunks = chunks_;
      copy.expected /= chunks_;
      symbol = copier_.builder().add_symbol(copy);
    }
    value.shape[0].symbol = symbol;
    value.chunk = chunk;
    value.chunks = chunks_;
    return copier_.builder().add_value(value);
  }

  void split_dispatch(const Op& op) {
    std::vector<ValueId>& received = chunks_of_[op.outputs[0]];
    for (int chunk = 0; chunk < chunks_; ++chunk) {
      const ValueId rows = rows_of_chunk(op.outputs[0], chunk, share(op, chunk, false));
      copier_.builder().add_op(op.kind, with_chunk(op, chunk), copier_.map(op.inputs), {rows});
      received.push_back(rows);
    }
  }

  void split_experts(const Op& op) {
    const std::vector<ValueId>& received = chunks_of_.at(op.inputs[0]);
    std::vector<ValueId>& computed = chunks_of_[op.outputs[0]];
    for (int chunk = 0; chunk < chunks_; ++chunk) {
      std::vector<ValueId> inputs = {received.at(chunk)};
      for (size_t i = 1; i < op.inputs.size(); ++i) {
        const bool stack = graph_.value(op.inputs[i]).kind == ValueKind::parameter;
        inputs.push_back(stack ? experts_of_chunk(op.inputs[i], chunk) : copier_.map(op.inputs[i]));
      }
      // Its row count is that of the rows received so far, so that work stays even over chunks.
      Attributes attributes = with_chunk(op, chunk);
      attributes.experts_per_row *= 1.0 / chunks_ / share(op, chunk, false);
      Value rows = copier_.builder().value(received.at(chunk));
      rows.name = "expert rows";
      const ValueId out = copier_.builder().add_value(rows);
      copier_.builder().add_op(op.kind, attributes, inputs, {out});
      computed.push_back(out);
    }
  }

  void split_combine(const Op& op) {
    const std::vector<ValueId>& computed = chunks_of_.at(op.inputs[0]);
    std::vector<ValueId> parts;
    const ValueId whole = copier_.map(op.outputs[0]);
    for (int chunk = 0; chunk < chunks_; ++chunk) {
      std::vector<ValueId> inputs = {computed.at(chunk)};
      for (size_t i = 1; i < op.inputs.size(); ++i) inputs.push_back(copier_.map(op.inputs[i]));
      const ValueId part = rows_of_chunk(op.outputs[0], chunk, share(op, chunk, true));
      copier_.builder().set_part_of(part, whole);
      copier_.builder().add_op(op.kind, with_chunk(op, chunk), inputs, {part});
      parts.push_back(part);
    }
    copier_.builder().add_op(OpKind::join, op.attributes, parts, {whole});
  }

  const Graph& graph_;
  const int chunks_;
  GraphCopier copier_;
  std::map<ValueId, std::vector<ValueId>> chunks_of_;  // by the value that they stand for
  std::vector<SymbolId> local_experts_ = std::vector<SymbolId>(chunks_, none);
};

}  // namespace

Graph expert_chunks(const Graph& graph, int chunks) {
  int most = 1 << 20;
  bool dispatches = false, alone = false;
  for (const Op& op : graph.ops()) {
    require_for_rewrite(op.attributes.chunks == 1, "expert-chunks", "a graph without chunks",
                        std::to_string(op.attributes.chunks) + " chunks");
    dispatches |= op.kind == OpKind::dispatch;
    if (op.kind == OpKind::plan) {
      alone |= op.attributes.ranks == 1;
      most = std::min(most, op.attributes.experts / op.attributes.ranks);
    }
  }
  require_for_rewrite(chunks >= 1 && chunks <= most, "expert-chunks",
                      "1 to " + std::to_string(most) + " (experts a rank)", std::to_string(chunks));
  if (chunks == 1 || (!dispatches && alone)) return graph;
  require_for_rewrite(dispatches, "expert-chunks", "a step that dispatches tokens", "none");
  return ExpertChunks(graph, chunks).run();
}

}  // namespace farskip
