#pragma once

#include <optional>
#include <vector>

#include "farskip/comm/group.h"
#include "farskip/runtime/compute_lane.h"
#include "farskip/runtime/op_plan.h"
#include "farskip/runtime/step_tensors.h"

namespace farskip {

// The values of a step that the host reads, since they say how many rows others have. On a CPU they
// are the step's own; on a device copies in pinned memory, made beside whatever the compute lane
// has queued. One thread.
class HostValues {
 public:
  // All arguments must outlive it.
  HostValues(const Graph& graph, const ComputeLane& lane, const StepTensors& tensors);

  // Forgets those of the step before.
  void begin();
  // On a device: queues copies of what the op read and wrote, once a step, behind its `work` or, if
  // that is not valid, behind what the compute lane has queued. Returns what passes when they are
  // there.
  const Event& copy(const OpPlan& plan, const Work& work);
  // Whether `copy` was called for the op in this step.
  bool are_copied(OpId op) const { return copied_[op].has_value(); }
  // On a device undefined unless copied in this step.
  const at::Tensor& operator[](ValueId id) const {
    return lane_.queues() ? host_[id] : tensors_[id];
  }

 private:
  const ComputeLane& lane_;
  const StepTensors& tensors_;
  std::vector<at::Tensor> host_;              // by value: copies of this step
  std::vector<at::Tensor> pinned_;            // by value: memory for them, from step to step
  std::vector<std::optional<Event>> copied_;  // by op
};

}  // namespace farskip
