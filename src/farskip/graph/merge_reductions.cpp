#include <map>
#include <utility>
#include <vector>

#include "farskip/graph/copier.h"
#include "farskip/graph/rewrite.h"

namespace farskip {
namespace {

bool is_private_reduction(const Graph& graph, ValueId id) {
  const OpId producer = graph.value(id).producer;
  return producer != none && graph.op(producer).kind == OpKind::all_reduce &&
         graph.consumers(id).size() == 1;
}

}  // namespace

Graph merge_reductions(const Graph& graph) {
  // For each sum: the runs of neighbouring terms that are reductions nobody else reads.
  std::map<OpId, std::vector<std::pair<size_t, size_t>>> runs;
  std::vector<bool> merged(graph.ops().size(), false);
  for (const Op& op : graph.ops()) {
    if (op.kind != OpKind::sum) continue;
    for (size_t i = 0; i < op.inputs.size();) {
      size_t end = i;
      while (end < op.inputs.size() && is_private_reduction(graph, op.inputs[end])) ++end;
      if (end - i >= 2) {
        runs[op.id].push_back({i, end});
        for (size_t j = i; j < end; ++j) merged[graph.value(op.inputs[j]).producer] = true;
      }
      i = std::max(end, i + 1);
    }
  }
  GraphCopier copier(graph, runs.empty(), "merged reductions");
  for (const Op& op : graph.ops()) {
    if (merged[op.id]) continue;
    const auto found = runs.find(op.id);
    if (found == runs.end()) {
      copier.copy(op);
      continue;
    }
    std::vector<ValueId> terms;
    size_t next = 0;
    for (const auto& [begin, end] : found->second) {
      for (; next < begin; ++next) terms.push_back(copier.map(op.inputs[next]));
      std::vector<ValueId> partial;
      for (; next < end; ++next) {
        const Op& reduction = graph.op(graph.value(op.inputs[next]).producer);
        partial.push_back(copier.map(reduction.inputs[0]));
      }
      Value sum = graph.value(op.inputs[begin]);
      sum.name = "partial sum";
      const ValueId summed = copier.builder().add_value(sum);
      copier.builder().add_op(OpKind::sum, op.attributes, partial, {summed});
      const ValueId whole = copier.builder().add_value(graph.value(op.inputs[begin]));
      const Op& reduction = graph.op(graph.value(op.inputs[begin]).producer);
      copier.builder().add_op(OpKind::all_reduce, reduction.attributes, {summed}, {whole});
      terms.push_back(whole);
    }
    for (; next < op.inputs.size(); ++next) terms.push_back(copier.map(op.inputs[next]));
    copier.builder().add_op(OpKind::sum, op.attributes, terms, copier.map(op.outputs));
  }
  return copier.finish();
}

}  // namespace farskip
