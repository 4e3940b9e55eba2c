#pragma once

#include <c10/core/ScalarType.h>

#include <vector>

#include "farskip/graph/graph.h"
#include "farskip/runtime/kernel.h"

namespace farskip {

// One output of an op: where its memory comes from.
struct OutputPlan {
  ValueId value = none;
  at::ScalarType type = at::kFloat;
  const std::vector<Dim>* shape = nullptr;
  // A part lies in `whole`, behind the parts whose leading dims are `before`.
  ValueId whole = none;
  at::ScalarType whole_type = at::kFloat;
  const std::vector<Dim>* whole_shape = nullptr;
  std::vector<Dim> before;
};

// A gradient that an op adds to.
struct GradientPlan {
  ValueId value = none;
  bool adds = false;  // an op before it in the step has put something there
};

struct InputPlan {
  ValueId value = none;
  bool cut = false;  // only the rows of the op's piece
};

// All that follows from the graph about running one op, worked out before the first step.
struct OpPlan {
  const Op* op = nullptr;
  const KernelEntry* entry = nullptr;
  std::vector<InputPlan> inputs;
  std::vector<OutputPlan> outputs;
  std::vector<GradientPlan> gradients;
  SymbolId piece = none;         // the part symbol of an op that is a piece
  bool by_sequences = false;     // of a piece
  std::vector<OpId> sizes_from;  // ops that bind sizes which must be known before this one
  std::vector<SymbolId> binds;   // symbols that this op binds
};

// Plans of all ops, by OpId; they point into the graph and the table. Throws UnsupportedError for
// an op without a kernel.
std::vector<OpPlan> plan_ops(const Graph& graph, const KernelTable& kernels);

}  // namespace farskip
