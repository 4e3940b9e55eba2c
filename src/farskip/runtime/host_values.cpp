#include "farskip/runtime/host_values.h"

#include <algorithm>

namespace farskip {

HostValues::HostValues(const Graph& graph, const ComputeLane& lane, const StepTensors& tensors)
    : lane_(lane),
      tensors_(tensors),
      host_(graph.values().size()),
      pinned_(graph.values().size()),
      copied_(graph.ops().size()) {}

void HostValues::begin() {
  std::fill(host_.begin(), host_.end(), at::Tensor());
  std::fill(copied_.begin(), copied_.end(), std::nullopt);
}

const Event& HostValues::copy(const OpPlan& plan, const Work& work) {
  std::optional<Event>& copied = copied_[plan.op->id];
  if (copied) return *copied;
  const auto guard = lane_.use(lane_.copy_stream());
  if (work.valid()) {
    work.wait(lane_.copy_stream());
  } else {
    lane_.mark(false).block(lane_.copy_stream());
  }
  const auto queue = [&](ValueId value) {
    queue_copy_to_host(tensors_[value], pinned_[value]);
    host_[value] = pinned_[value];
  };
  for (const InputPlan& input : plan.inputs) queue(input.value);
  for (const OutputPlan& output : plan.outputs) queue(output.value);
  return copied.emplace(lane_.mark_copies());
}

}  // namespace farskip
