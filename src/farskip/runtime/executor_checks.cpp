#include "farskip/runtime/executor_checks.h"

#include <ATen/ops/isfinite.h>

#include <algorithm>
#include <string>

#include "farskip/base/error.h"

namespace farskip {
namespace {

void require(int expected, int found, const std::string& where) {
  if (found == expected) return;
  throw ConfigError(
      "made for another number of ranks than the group has",
      {.where = where, .expected = std::to_string(expected), .found = std::to_string(found)});
}

}  // namespace

void check_ranks(const Graph& graph, const Placement& placement, const Group& group,
                 const Group* stages) {
  const int sets = std::max(1, group.size() / placement.ranks());
  require(group.size(), sets * placement.ranks(), "placement");
  for (const Op& op : graph.ops()) {
    if (op.lane != Lane::communication) continue;
    if (is_between_stages(op.attributes)) {
      require(stages != nullptr ? stages->size() : 1, op.attributes.stages, describe(op));
    } else {
      require(is_among_experts(op.kind) ? placement.ranks() : group.size(), op.attributes.ranks,
              describe(op));
    }
  }
}

void check_finite(const Graph& graph, const OpPlan& plan, int rank,
                  std::span<const at::Tensor> outputs, std::span<const WeightGradient> gradients) {
  auto check = [&](ValueId id, const at::Tensor& tensor) {
    const bool finite = !tensor.is_floating_point() || tensor.isfinite().all().item<bool>();
    if (finite) return;
    throw NumericError("a value is not finite",
                       {.where = "rank " + std::to_string(rank) + ", " + describe(*plan.op),
                        .found = graph.value(id).name});
  };
  for (size_t i = 0; i < outputs.size(); ++i) check(plan.outputs[i].value, outputs[i]);
  for (size_t i = 0; i < gradients.size(); ++i) {
    check(plan.gradients[i].value, gradients[i].tensor);
  }
}

}  // namespace farskip
