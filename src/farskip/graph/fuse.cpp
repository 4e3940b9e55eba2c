#include <map>
#include <span>
#include <utility>
#include <vector>

#include "farskip/graph/copier.h"
#include "farskip/graph/rewrite.h"

namespace farskip {
namespace {

const Op* producer_of(const Graph& graph, ValueId id, OpKind kind) {
  const OpId producer = graph.value(id).producer;
  if (producer == none || graph.op(producer).kind != kind) return nullptr;
  return &graph.op(producer);
}

bool has_one_reader(const Graph& graph, ValueId id) {
  for (ValueId output : graph.outputs()) {
    if (output == id) return false;
  }
  return graph.consumers(id).size() == 1;
}

// The sums that one op makes with a norm: sum -> norm, the first one that reads it.
std::map<OpId, OpId> find_sum_norms(const Graph& graph) {
  std::map<OpId, OpId> norms;
  for (const Op& op : graph.ops()) {
    if (op.kind != OpKind::norm || !op.order_after.empty()) continue;
    const Op* sum = producer_of(graph, op.inputs.at(0), OpKind::sum);
    if (sum != nullptr) norms.insert({sum->id, op.id});
  }
  return norms;
}

// The experts that gather their rows: experts -> permute, whose rows nobody else reads.
std::map<OpId, OpId> find_gathers(const Graph& graph) {
  std::map<OpId, OpId> permutes;
  for (const Op& op : graph.ops()) {
    if (op.kind != OpKind::experts || op.outputs.size() > 1) continue;
    const Op* permute = producer_of(graph, op.inputs.at(0), OpKind::permute);
    if (permute == nullptr || !has_one_reader(graph, op.inputs[0])) continue;
    const Op* plan = producer_of(graph, permute->inputs.at(1), OpKind::plan);
    const bool by_inverse = plan != nullptr && permute->inputs[1] == plan->outputs.at(1);
    if (by_inverse && permute->order_after.empty()) permutes.insert({op.id, permute->id});
  }
  return permutes;
}

void add_sum_norm(GraphCopier& copier, const Graph& graph, const Op& sum, const Op& norm) {
  Op both = sum;
  both.kind = OpKind::sum_norm;
  std::vector<ValueId> inputs = copier.map(sum.inputs), outputs;
  inputs.push_back(copier.map(norm.inputs.at(1)));
  if (!has_one_reader(graph, sum.outputs.at(0))) outputs.push_back(copier.map(sum.outputs[0]));
  outputs.push_back(copier.map(norm.outputs.at(0)));
  const OpId added = copier.add(both, norm.attributes, std::move(inputs), std::move(outputs));
  copier.also_for(norm.id, added);
}

void add_gathering_experts(GraphCopier& copier, const Graph& graph, const Op& experts,
                           const Op& permute) {
  const Op& plan = graph.op(graph.value(permute.inputs[1]).producer);
  std::vector<ValueId> inputs = {copier.map(permute.inputs.at(0))};
  for (ValueId id : std::span(experts.inputs).subspan(1)) inputs.push_back(copier.map(id));
  inputs.push_back(copier.map(plan.outputs.at(0)));
  const OpId added =
      copier.add(experts, experts.attributes, std::move(inputs), copier.map(experts.outputs));
  copier.also_for(permute.id, added);
}

}  // namespace

Graph fuse(const Graph& graph) {
  const std::map<OpId, OpId> norm_of = find_sum_norms(graph), permute_of = find_gathers(graph);
  std::vector<bool> fused(graph.ops().size(), false);
  for (const auto& [into, op] : norm_of) fused[op] = true;
  for (const auto& [into, op] : permute_of) fused[op] = true;
  GraphCopier copier(graph, true, "");
  for (const Op& op : graph.ops()) {
    if (fused[op.id]) continue;
    if (const auto norm = norm_of.find(op.id); norm != norm_of.end()) {
      add_sum_norm(copier, graph, op, graph.op(norm->second));
    } else if (const auto permute = permute_of.find(op.id); permute != permute_of.end()) {
      add_gathering_experts(copier, graph, op, graph.op(permute->second));
    } else {
      copier.copy(op);
    }
  }
  return copier.finish();
}

}  // namespace farskip
