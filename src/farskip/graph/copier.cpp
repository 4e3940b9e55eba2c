#include "farskip/graph/copier.h"

#include <utility>

namespace farskip {

GraphCopier::GraphCopier(const Graph& source, bool keeps_bits, const std::string& suffix)
    : source_(source), values_(source.values().size(), none), ops_(source.ops().size()) {
  for (const Symbol& symbol : source.symbols()) builder_.add_symbol(symbol);
  builder_.set_micro_batches(source.micro_batches());
  builder_.set_keeps_bits(source.keeps_bits() && keeps_bits);
  builder_.set_description(source.description() + (suffix.empty() ? "" : ", " + suffix));
}

ValueId GraphCopier::map(ValueId old) {
  if (values_.at(old) == none) {
    Value value = source_.value(old);
    if (value.part_of != none) value.part_of = map(value.part_of);
    values_[old] = builder_.add_value(value);
  }
  return values_[old];
}

std::vector<ValueId> GraphCopier::map(std::span<const ValueId> old) {
  std::vector<ValueId> mapped;
  for (ValueId id : old) mapped.push_back(map(id));
  return mapped;
}

OpId GraphCopier::add(const Op& op, const Attributes& attributes, std::vector<ValueId> inputs,
                      std::vector<ValueId> outputs) {
  std::vector<OpId> order_after;
  for (OpId before : op.order_after) {
    order_after.insert(order_after.end(), ops_.at(before).begin(), ops_.at(before).end());
  }
  const OpId id = builder_.add_op(op.kind, attributes, std::move(inputs), std::move(outputs),
                                  std::move(order_after));
  ops_.at(op.id).push_back(id);
  return id;
}

OpId GraphCopier::copy(const Op& op, const Attributes& attributes,
                       const std::vector<ValueId>& more_outputs) {
  std::vector<ValueId> outputs = map(op.outputs);
  outputs.insert(outputs.end(), more_outputs.begin(), more_outputs.end());
  const OpId id = add(op, attributes, map(op.inputs), std::move(outputs));
  builder_.set_accumulates(id, map(op.accumulates));
  if (op.host_waits) builder_.set_host_waits(id);
  return id;
}

Graph GraphCopier::finish() {
  for (ValueId output : source_.outputs()) builder_.add_output(map(output));
  return builder_.finish();
}

}  // namespace farskip
