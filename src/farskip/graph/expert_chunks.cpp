#include <algorithm>
#include <map>
#include <string>
#include <utility>
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
          resize_counts(op);
          copier_.copy(op, with_chunk(op, 0));
          break;
        case OpKind::permute:
          copier_.copy(op, with_chunk(op, 0));
          break;
        case OpKind::dispatch:
        case OpKind::arrange:
        case OpKind::experts:
        case OpKind::weigh:
        case OpKind::combine_gradient:
        case OpKind::experts_gradient:
        case OpKind::experts_weight_gradient:
        case OpKind::experts_products:
          for (int chunk = 0; chunk < chunks_; ++chunk) add_chunk(op, chunk);
          break;
        case OpKind::combine:
        case OpKind::dispatch_gradient:
          split_into_parts(op);
          break;
        default:
          copier_.copy(op);
      }
    }
    return copier_.finish();
  }

 private:
  static bool per_rank(const Op& op) { return op.attributes.dispatch == DispatchForm::per_rank; }

  Attributes with_chunk(const Op& op, int chunk) const {
    Attributes attributes = op.attributes;
    attributes.chunk = chunk;
    attributes.chunks = chunks_;
    return attributes;
  }

  // Per-rank counts, an op's last output, say for every chunk how many rows go with it.
  void resize_counts(const Op& op) {
    if (!per_rank(op)) return;
    Value counts = graph_.value(op.outputs.back());
    counts.shape.back().size *= chunks_;
    copier_.bind(op.outputs.back(), copier_.builder().add_value(counts));
  }

  // Share of all rows that move with this chunk. A per-rank row travels with the first chunk that
  // needs it and returns with the last.
  double share(const Attributes& a, Symbol::Kind kind, int chunk) const {
    const bool back = kind == Symbol::Kind::returned_rows || kind == Symbol::Kind::home_rows;
    const bool whole_rows = back || kind == Symbol::Kind::received_rows;
    if (a.dispatch == DispatchForm::per_expert || !whole_rows) return 1.0 / chunks_;
    const int part = back ? chunks_ - 1 - chunk : chunk;
    return share_first_reached(a.experts, a.top_k, a.ranks, part, chunks_);
  }

  SymbolId symbol_of_chunk(SymbolId whole, const Attributes& attributes, int chunk) {
    const auto [found, first] = symbols_.try_emplace({whole, chunk}, none);
    if (first) {
      Symbol symbol = graph_.symbol(whole);
      symbol.chunk = chunk;
      symbol.chunks = chunks_;
      symbol.expected *= share(attributes, symbol.kind, chunk);
      found->second = copier_.builder().add_symbol(symbol);
    }
    return found->second;
  }

  // A chunk's part of a value whose rows are cut into chunks.
  ValueId value_of_chunk(ValueId whole, const Attributes& attributes, int chunk) {
    Value value = graph_.value(whole);
    SymbolId& symbol = value.shape.at(0).symbol;
    symbol = symbol_of_chunk(symbol, attributes, chunk);
    if (value.kind != ValueKind::activation) {
      value.chunk = chunk;
      value.chunks = chunks_;
    }
    return copier_.builder().add_value(value);
  }

  // Ops that add to the same gradient add to the same parts of it.
  ValueId gradient_of_chunk(ValueId whole, const Attributes& attributes, int chunk) {
    const auto [found, first] = gradients_.try_emplace({whole, chunk}, none);
    if (first) found->second = value_of_chunk(whole, attributes, chunk);
    return found->second;
  }

  // A per-rank row may have come, and been computed, with an earlier chunk.
  static bool reads_earlier_chunks(const Op& op, size_t input) {
    return per_rank(op) && (op.kind == OpKind::arrange || op.kind == OpKind::weigh) &&
           input + 1 == op.inputs.size();
  }

  std::vector<ValueId> inputs_of_chunk(const Op& op, int chunk) {
    std::vector<ValueId> inputs;
    for (size_t i = 0; i < op.inputs.size(); ++i) {
      const ValueId id = op.inputs[i];
      const auto cut = chunks_of_.find(id);
      if (cut != chunks_of_.end()) {
        const int first = reads_earlier_chunks(op, i) ? 0 : chunk;
        inputs.insert(inputs.end(), cut->second.begin() + first, cut->second.begin() + chunk + 1);
      } else if (graph_.value(id).kind == ValueKind::parameter) {
        inputs.push_back(value_of_chunk(id, op.attributes, chunk));
      } else {
        inputs.push_back(copier_.map(id));
      }
    }
    return inputs;
  }

  void add_chunk(const Op& op, int chunk) {
    std::vector<ValueId> outputs;
    for (ValueId id : op.outputs) {
      outputs.push_back(value_of_chunk(id, op.attributes, chunk));
      chunks_of_[id].push_back(outputs.back());
    }
    const OpId id = copier_.add(op, with_chunk(op, chunk), inputs_of_chunk(op, chunk), outputs);
    std::vector<ValueId> gradients;
    for (ValueId whole : op.accumulates) {
      gradients.push_back(gradient_of_chunk(whole, op.attributes, chunk));
    }
    copier_.builder().set_accumulates(id, gradients);
  }

  // Each chunk makes its rows of what was made whole.
  void split_into_parts(const Op& op) {
    const ValueId whole = copier_.map(op.outputs[0]);
    for (int chunk = 0; chunk < chunks_; ++chunk) {
      add_chunk(op, chunk);
      copier_.builder().set_part_of(chunks_of_.at(op.outputs[0]).back(), whole);
    }
    copier_.builder().add_op(OpKind::join, op.attributes, chunks_of_.at(op.outputs[0]), {whole});
  }

  const Graph& graph_;
  const int chunks_;
  GraphCopier copier_;
  std::map<ValueId, std::vector<ValueId>> chunks_of_;     // by the value that they stand for
  std::map<std::pair<SymbolId, int>, SymbolId> symbols_;  // by what they are of, and chunk
  std::map<std::pair<ValueId, int>, ValueId> gradients_;  // the same
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
