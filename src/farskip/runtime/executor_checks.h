#pragma once

#include <ATen/core/Tensor.h>

#include <span>

#include "farskip/comm/group.h"
#include "farskip/model/placement.h"
#include "farskip/nn/weight_gradient.h"
#include "farskip/runtime/op_plan.h"

namespace farskip {

// Throws ConfigError unless the group is one or several sets of the placement's ranks, and all ops
// are of as many ranks and stages; `stages`: null where the graph is no stage's.
void check_ranks(const Graph& graph, const Placement& placement, const Group& group,
                 const Group* stages);

// Throws NumericError, naming op and tensor, for a floating-point output or gradient of an op that
// is not finite. The host waits for the device. `outputs`, `gradients` as the plan has them.
void check_finite(const Graph& graph, const OpPlan& plan, int rank,
                  std::span<const at::Tensor> outputs, std::span<const WeightGradient> gradients);

}  // namespace farskip
