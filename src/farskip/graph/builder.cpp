#include <algorithm>
#include <bit>
#include <string>

#include "farskip/base/error.h"
#include "farskip/graph/graph.h"

namespace farskip {
namespace {

// FNV-1a over integers and strings: the same on every rank and machine.
class Fingerprint {
 public:
  void add(int64_t number) {
    for (int shift = 0; shift < 64; shift += 8) add_byte(static_cast<uint8_t>(number >> shift));
  }
  void add(const std::string& text) {
    add(static_cast<int64_t>(text.size()));
    for (char c : text) add_byte(static_cast<uint8_t>(c));
  }
  uint64_t value() const { return value_; }

 private:
  void add_byte(uint8_t byte) { value_ = (value_ ^ byte) * 1099511628211ull; }
  uint64_t value_ = 14695981039346656037ull;
};

void add_attributes(Fingerprint& print, const Attributes& a) {
  for (int number : {a.layer,
                     a.micro_batch,
                     a.chunk,
                     a.chunks,
                     a.piece,
                     a.pieces,
                     a.bucket,
                     a.again ? 1 : 0,
                     static_cast<int>(a.routing),
                     static_cast<int>(a.dispatch),
                     a.ranks,
                     static_cast<int>(a.wire),
                     a.experts,
                     a.top_k,
                     a.groups,
                     a.kept_groups,
                     a.heads,
                     a.qk_head_dim,
                     a.value_head_dim,
                     a.router,
                     a.stages,
                     a.peer,
                     a.message}) {
    print.add(number);
  }
  for (double coefficient :
       {a.router_losses.balance, a.router_losses.sequence_balance, a.router_losses.z}) {
    print.add(std::bit_cast<int64_t>(coefficient));
  }
}

uint64_t fingerprint(std::span<const Op> ops, std::span<const Value> values) {
  Fingerprint print;
  for (const Value& value : values) {
    print.add(static_cast<int64_t>(value.kind));
    print.add(value.name);
    print.add(static_cast<int64_t>(value.dtype));
    print.add(value.part_of);
    print.add(value.chunk * 1000 + value.chunks);
    for (const Dim& dim : value.shape) {
      print.add(dim.size);
      print.add(dim.symbol);
    }
  }
  for (const Op& op : ops) {
    print.add(static_cast<int64_t>(op.kind));
    add_attributes(print, op.attributes);
    for (ValueId id : op.inputs) print.add(id);
    print.add(none);
    for (ValueId id : op.outputs) print.add(id);
    print.add(none);
    for (ValueId id : op.accumulates) print.add(id);
    print.add(none);
    for (OpId id : op.order_after) print.add(id);
  }
  return print.value();
}

void sort_unique(std::vector<OpId>& ids) {
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
}

std::string name_of(const Op& op) {
  return "op " + std::to_string(op.id) + " (" + to_string(op.kind) + ", layer " +
         std::to_string(op.attributes.layer) + ")";
}

}  // namespace

SymbolId GraphBuilder::add_symbol(Symbol symbol) {
  graph_.symbols_.push_back(std::move(symbol));
  return static_cast<SymbolId>(graph_.symbols_.size()) - 1;
}

ValueId GraphBuilder::add_value(Value value) {
  value.id = static_cast<ValueId>(graph_.values_.size());
  value.producer = none;
  graph_.values_.push_back(std::move(value));
  return graph_.values_.back().id;
}

OpId GraphBuilder::add_op(OpKind kind, Attributes attributes, std::vector<ValueId> inputs,
                          std::vector<ValueId> outputs, std::vector<OpId> order_after) {
  Op op;
  op.id = op_count();
  op.kind = kind;
  op.attributes = attributes;
  op.lane = is_communication(kind) ? Lane::communication : Lane::compute;
  op.host_waits = kind == OpKind::counts;
  op.inputs = std::move(inputs);
  op.outputs = std::move(outputs);
  op.order_after = std::move(order_after);
  for (ValueId id : op.inputs) {
    const Value& input = value(id);
    if (input.kind == ValueKind::activation && input.producer == none) {
      throw GraphError("reads a value that nothing before it makes",
                       {.where = name_of(op), .found = "value " + std::to_string(id)});
    }
  }
  for (ValueId id : op.outputs) {
    if (value(id).producer != none) {
      throw GraphError("makes a value that another op makes already",
                       {.where = name_of(op), .found = "value " + std::to_string(id)});
    }
    graph_.values_[id].producer = op.id;
  }
  graph_.ops_.push_back(std::move(op));
  return graph_.ops_.back().id;
}

void GraphBuilder::set_accumulates(OpId op, std::vector<ValueId> gradients) {
  for (ValueId id : gradients) {
    if (value(id).kind == ValueKind::gradient) continue;
    throw GraphError("adds to a value that is no gradient",
                     {.where = name_of(graph_.ops_.at(op)), .found = value(id).name});
  }
  graph_.ops_.at(op).accumulates = std::move(gradients);
}

void GraphBuilder::add_output(ValueId value) { graph_.outputs_.push_back(value); }

void GraphBuilder::link_symbols() {
  graph_.binders_.assign(graph_.symbols_.size(), none);
  for (size_t s = 0; s < graph_.symbols_.size(); ++s) {
    const Symbol& symbol = graph_.symbols_[s];
    if (!is_routed(symbol.kind)) continue;
    for (const Op& op : graph_.ops_) {
      if (op.host_waits && op.attributes.layer == symbol.layer &&
          op.attributes.micro_batch == symbol.micro_batch) {
        graph_.binders_[s] = op.id;
      }
    }
  }
}

void GraphBuilder::link_ops() {
  graph_.consumers_.assign(graph_.values_.size(), {});
  graph_.predecessors_.assign(graph_.ops_.size(), {});
  graph_.successors_.assign(graph_.ops_.size(), {});
  std::vector<OpId> last_to_add(graph_.values_.size(), none);
  for (const Op& op : graph_.ops_) {
    std::vector<OpId>& before = graph_.predecessors_[op.id];
    before = op.order_after;
    auto follow = [&](ValueId gradient) {
      if (last_to_add[gradient] != none) before.push_back(last_to_add[gradient]);
    };
    auto needs_sizes_of = [&](ValueId id) {
      for (const Dim& dim : value(id).shape) {
        if (dim.exact()) continue;
        const OpId binder = graph_.binders_[dim.symbol];
        if (binder != none && binder != op.id) before.push_back(binder);
      }
    };
    for (ValueId id : op.inputs) {
      graph_.consumers_[id].push_back(op.id);
      if (value(id).producer != none) before.push_back(value(id).producer);
      follow(id);
      needs_sizes_of(id);
    }
    for (ValueId id : op.outputs) needs_sizes_of(id);
    for (ValueId id : op.accumulates) {
      follow(id);
      last_to_add[id] = op.id;
    }
    sort_unique(before);
    for (OpId id : before) graph_.successors_[id].push_back(op.id);
  }
  for (auto& readers : graph_.consumers_) sort_unique(readers);
}

void GraphBuilder::check() const {
  for (const Op& op : graph_.ops_) {
    for (OpId before : graph_.predecessors_[op.id]) {
      if (before >= op.id) {
        throw GraphError("comes before an op that it needs",
                         {.where = name_of(op), .found = name_of(graph_.ops_[before])});
      }
    }
    if (op.kind != OpKind::join) continue;
    for (ValueId part : op.inputs) {
      if (value(part).part_of != op.outputs.at(0)) {
        throw GraphError("joins a value that is no part of its output", {.where = name_of(op)});
      }
    }
  }
  for (const Value& v : graph_.values_) {
    const bool activation = v.kind == ValueKind::activation;
    if (activation && v.producer == none) {
      throw GraphError("nothing makes this value", {.where = "value " + v.name});
    }
    if (v.part_of != none && graph_.ops_[value(v.part_of).producer].kind != OpKind::join) {
      throw GraphError("a part of a value that is no join", {.where = "value " + v.name});
    }
  }
}

Graph GraphBuilder::finish() {
  link_symbols();
  link_ops();
  check();
  graph_.hash_ = fingerprint(graph_.ops_, graph_.values_);
  return std::move(graph_);
}

}  // namespace farskip
