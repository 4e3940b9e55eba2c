#pragma once

#include <string>
#include <vector>

#include "farskip/graph/graph.h"

namespace farskip {

// Copies a graph op by op into a builder, so that a rewrite states only what it changes. Symbols
// are copied up front under their old ids; values when an op first needs them.
class GraphCopier {
 public:
  // The new graph keeps bits if the source does and `keeps_bits` is true; `suffix` is added to its
  // description, if there is one.
  GraphCopier(const Graph& source, bool keeps_bits, const std::string& suffix);

  GraphBuilder& builder() { return builder_; }
  // The new id of an old value: a copy of it, unless the rewrite has bound another one.
  ValueId map(ValueId old);
  std::vector<ValueId> map(std::span<const ValueId> old);
  void bind(ValueId old, ValueId replacement) { values_.at(old) = replacement; }
  // The new op stands for an old one besides the one that it was added for.
  void also_for(OpId old, OpId added) { ops_.at(old).push_back(added); }
  // The ops that stand for an old one: its copy, or what the rewrite has added for it so far.
  std::span<const OpId> ops_for(OpId old) const { return ops_.at(old); }

  // Adds an op that stands for `op`, or for a part of it: in order behind those that stand for what
  // `op` is ordered after.
  OpId add(const Op& op, const Attributes& attributes, std::vector<ValueId> inputs,
           std::vector<ValueId> outputs);
  // Copies the op with its attributes. `more_outputs`: new values that the copy makes besides.
  OpId copy(const Op& op) { return copy(op, op.attributes); }
  OpId copy(const Op& op, const Attributes& attributes,
            const std::vector<ValueId>& more_outputs = {});
  Graph finish();

 private:
  const Graph& source_;
  GraphBuilder builder_;
  std::vector<ValueId> values_;
  std::vector<std::vector<OpId>> ops_;
};

}  // namespace farskip
