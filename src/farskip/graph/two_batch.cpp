#include <algorithm>
#include <string>
#include <vector>

#include "farskip/graph/rewrite.h"
#include "farskip/graph/rewrite_error.h"

namespace farskip {
namespace {

class TwoBatch {
 public:
  explicit TwoBatch(const Graph& graph)
      : graph_(graph),
        symbols_(graph.symbols().size(), none),
        values_(graph.values().size(), none) {}

  Graph run() {
    for (const Symbol& symbol : graph_.symbols()) builder_.add_symbol(halved(symbol, 0));
    // A symbol that another one is a part of comes first, so its second copy is known by then.
    for (size_t id = 0; id < graph_.symbols().size(); ++id) {
      const Symbol& symbol = graph_.symbols()[id];
      symbols_[id] = symbol.kind == Symbol::Kind::local_experts
                         ? static_cast<SymbolId>(id)
                         : builder_.add_symbol(second_half(symbol));
    }
    std::vector<ValueId> first(values_), second(values_);
    std::vector<OpId> first_ops, second_ops;  // by what they are copies of
    for (const Op& op : graph_.ops()) {
      if (is_of_both(op)) {
        first_ops.push_back(copy_for_both(op, first, second));
        second_ops.push_back(first_ops.back());
      } else {
        first_ops.push_back(copy(op, 0, first, first_ops));
        second_ops.push_back(copy(op, 1, second, second_ops));
      }
    }
    for (ValueId id : graph_.outputs()) {
      builder_.add_output(first.at(id));
      if (values_[id] == none) builder_.add_output(second.at(id));
    }
    builder_.set_micro_batches(2);
    builder_.set_keeps_bits(false);
    builder_.set_description(graph_.description() + ", two-batch");
    return builder_.finish();
  }

 private:
  static Symbol halved(Symbol symbol, int micro_batch) {
    if (symbol.kind == Symbol::Kind::local_experts) return symbol;
    symbol.micro_batch = micro_batch;
    symbol.expected /= 2;
    return symbol;
  }

  Symbol second_half(const Symbol& symbol) const {
    Symbol half = halved(symbol, 1);
    if (half.whole != none) half.whole = symbols_.at(half.whole);
    return half;
  }

  ValueId value(ValueId old, int micro_batch, std::vector<ValueId>& mapped) {
    if (mapped[old] != none) return mapped[old];
    Value copy = graph_.value(old);
    if (copy.kind == ValueKind::parameter || copy.kind == ValueKind::gradient) {
      if (values_[old] == none) values_[old] = builder_.add_value(copy);
      return mapped[old] = values_[old];
    }
    if (micro_batch == 1) {
      for (Dim& dim : copy.shape) {
        if (!dim.exact()) dim.symbol = symbols_.at(dim.symbol);
      }
    }
    if (copy.part_of != none) copy.part_of = value(copy.part_of, micro_batch, mapped);
    return mapped[old] = builder_.add_value(copy);
  }

  // Loads are counted over both halves, so that losses of them stay what they are; what reads
  // nothing but them is of both too.
  bool is_of_both(const Op& op) const {
    return op.kind == OpKind::expert_loads ||
           (!op.inputs.empty() && std::ranges::all_of(op.inputs, [&](ValueId id) {
             return graph_.value(id).kind == ValueKind::activation && values_[id] != none;
           }));
  }

  OpId copy_for_both(const Op& op, std::vector<ValueId>& first, std::vector<ValueId>& second) {
    std::vector<ValueId> inputs, outputs;
    for (ValueId id : op.inputs) inputs.push_back(first.at(id));
    if (op.kind == OpKind::expert_loads) {
      for (ValueId id : op.inputs) inputs.push_back(second.at(id));
    }
    for (ValueId id : op.outputs) {
      values_[id] = builder_.add_value(graph_.value(id));
      outputs.push_back(first[id] = second[id] = values_[id]);
    }
    return builder_.add_op(op.kind, op.attributes, inputs, outputs);
  }

  // `copied`: of the same micro-batch so far.
  OpId copy(const Op& op, int micro_batch, std::vector<ValueId>& mapped,
            const std::vector<OpId>& copied) {
    Attributes attributes = op.attributes;
    attributes.micro_batch = micro_batch;
    auto map = [&](const std::vector<ValueId>& old) {
      std::vector<ValueId> ids;
      for (ValueId id : old) ids.push_back(value(id, micro_batch, mapped));
      return ids;
    };
    std::vector<OpId> order_after;
    for (OpId before : op.order_after) order_after.push_back(copied.at(before));
    const OpId id =
        builder_.add_op(op.kind, attributes, map(op.inputs), map(op.outputs), order_after);
    builder_.set_accumulates(id, map(op.accumulates));
    if (op.host_waits) builder_.set_host_waits(id);
    return id;
  }

  const Graph& graph_;
  GraphBuilder builder_;
  std::vector<SymbolId> symbols_;  // of the second micro-batch
  std::vector<ValueId> values_;    // that both share: parameters, gradients, loads
};

}  // namespace

Graph two_batch(const Graph& graph) {
  require_for_rewrite(graph.micro_batches() == 1, "two-batch", "one micro-batch",
                      std::to_string(graph.micro_batches()));
  return TwoBatch(graph).run();
}

}  // namespace farskip
