#include "farskip/graph/differentiate.h"

#include <ranges>

#include "farskip/base/error.h"
#include "farskip/graph/backward.h"

namespace farskip {
namespace {

void check_forward(const Graph& graph) {
  const bool loss = !graph.outputs().empty() &&
                    graph.op(graph.value(graph.outputs()[0]).producer).kind == OpKind::loss;
  if (!loss) {
    throw GraphError("only a step that ends in a loss has a backward",
                     {.where = graph.description(), .hint = "build it with StepEnd::loss"});
  }
  for (const Op& op : graph.ops()) {
    const Attributes& a = op.attributes;
    if (a.chunks > 1 || a.pieces > 1 || a.micro_batch > 0) {
      throw GraphError("a rewritten step can not be differentiated",
                       {.where = graph.description(), .hint = "differentiate first"});
    }
    const bool replicated = op.kind == OpKind::all_reduce && a.layer > 0;
    if (replicated || a.dispatch == DispatchForm::per_rank) {
      throw UnsupportedError("no backward step for this form",
                             {.where = graph.description(),
                              .expected = "tokens split over ranks, dispatched per expert",
                              .found = replicated ? "tokens on every rank" : "per-rank dispatch"});
    }
  }
}

}  // namespace

Graph differentiate(const Graph& forward, DType gradients) {
  check_forward(forward);
  GraphCopier copier(forward, true, "forward and backward");
  std::vector<size_t> saved;
  for (const Op& op : forward.ops()) {
    const std::vector<ValueId> values = add_saved(copier.builder(), forward, op);
    saved.push_back(values.size());
    copier.copy(op, op.attributes, values);
  }
  GraphBuilder& builder = copier.builder();
  const std::vector<ValueId> outputs = copier.map(forward.outputs());
  const Op& loss = builder.op(builder.value(outputs[0]).producer);
  Backward backward(
      builder, gradients,
      {.label_count = loss.inputs.at(2), .expert_loads = outputs.size() > 1 ? outputs[1] : none});
  for (const Op& op : forward.ops() | std::views::reverse) {
    add_gradients(backward, builder.op(op.id), saved[op.id]);
  }
  for (ValueId output : outputs) builder.add_output(output);
  const ValueId losses = backward.sum_router_losses();
  if (losses != none) builder.add_output(losses);
  return builder.finish();
}

OpId last_forward_op(const Graph& step) {
  for (const Op& op : step.ops() | std::views::reverse) {
    if (op.kind == OpKind::loss) return op.id;
  }
  return static_cast<OpId>(step.ops().size()) - 1;
}

}  // namespace farskip
