#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "farskip/graph/copier.h"
#include "farskip/graph/rewrite.h"
#include "farskip/graph/rewrite_error.h"

namespace farskip {
namespace {

bool is_cut_by_sequences(OpKind kind) {
  return kind == OpKind::attention_core || kind == OpKind::attention_core_gradient;
}

bool can_be_cut(OpKind kind) {
  switch (kind) {
    case OpKind::attention_prepare:
    case OpKind::output_projection:
    case OpKind::shared_experts:
    case OpKind::dense_mlp:
    case OpKind::attention_prepare_gradient:
    case OpKind::linear_gradient:
    case OpKind::mlp_gradient:
    case OpKind::mlp_products:
      return true;
    default:
      return is_cut_by_sequences(kind);
  }
}

class Pieces {
 public:
  Pieces(const Graph& graph, int pieces)
      : graph_(graph), pieces_(pieces), copier_(graph, true, "pieces " + std::to_string(pieces)) {}

  Graph run() {
    for (const Op& op : graph_.ops()) {
      if (can_be_cut(op.kind)) {
        cut(op);
      } else {
        copier_.copy(op);
      }
    }
    return copier_.finish();
  }

 private:
  SymbolId part_symbol(SymbolId whole, int part, bool by_sequences) {
    const auto key = std::make_tuple(whole, part, by_sequences);
    const auto found = parts_.find(key);
    if (found != parts_.end()) return found->second;
    Symbol symbol = graph_.symbol(whole);
    symbol.kind = Symbol::Kind::part;
    symbol.name = "part of " + symbol.name;
    symbol.part = part;
    symbol.parts = pieces_;
    symbol.by_sequences = by_sequences;
    symbol.whole = whole;
    symbol.expected /= pieces_;
    return parts_[key] = copier_.builder().add_symbol(symbol);
  }

  void cut(const Op& op) {
    const bool by_sequences = is_cut_by_sequences(op.kind);
    const std::vector<ValueId> wholes = copier_.map(op.outputs);
    std::vector<std::vector<ValueId>> parts(wholes.size());
    for (int piece = 0; piece < pieces_; ++piece) {
      Attributes attributes = op.attributes;
      attributes.piece = piece;
      attributes.pieces = pieces_;
      std::vector<ValueId> outputs;
      for (size_t i = 0; i < wholes.size(); ++i) {
        Value part = graph_.value(op.outputs[i]);
        part.shape.at(0).symbol = part_symbol(part.shape[0].symbol, piece, by_sequences);
        const ValueId id = copier_.builder().add_value(part);
        copier_.builder().set_part_of(id, wholes[i]);
        outputs.push_back(id);
        parts[i].push_back(id);
      }
      copier_.add(op, attributes, copier_.map(op.inputs), outputs);
    }
    for (size_t i = 0; i < wholes.size(); ++i) {
      copier_.builder().add_op(OpKind::join, op.attributes, parts[i], {wholes[i]});
    }
  }

  const Graph& graph_;
  const int pieces_;
  GraphCopier copier_;
  std::map<std::tuple<SymbolId, int, bool>, SymbolId> parts_;
};

}  // namespace

Graph pieces(const Graph& graph, int pieces) {
  require_for_rewrite(pieces >= 1 && pieces <= 1024, "pieces", "1 to 1024", std::to_string(pieces));
  for (const Op& op : graph.ops()) {
    require_for_rewrite(op.attributes.pieces == 1, "pieces", "a graph without pieces",
                        std::to_string(op.attributes.pieces) + " pieces");
  }
  if (pieces == 1) return graph;
  return Pieces(graph, pieces).run();
}

}  // namespace farskip
