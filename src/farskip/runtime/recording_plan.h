#pragma once

#include <span>
#include <vector>

#include "farskip/runtime/arrivals.h"
#include "farskip/runtime/op_plan.h"
#include "farskip/schedule/schedule.h"

namespace farskip {

// What of a schedule can be recorded and launched anew as it is: ops of the compute lane behind one
// another, by kernels that say so, which read and write what ops of that lane make, or read what
// collectives bring. Sizes are the batch's, or routing's where a kernel takes spare rows. The first
// op of a stretch may wait for collectives and for sizes; what another lane waits for is its last
// op.
struct RecordingPlan {
  std::vector<std::vector<Step>> stretches;  // in launch order
  std::vector<int> stretch_of;               // by op, or none
  // By stretch: sizes that routing decides, of what its ops read and write.
  std::vector<std::vector<SymbolId>> routed;
  std::vector<Arrival> arrivals;  // what collectives bring to recorded ops
  // By value: recorded ops read or write it, so that its memory must stay where it is.
  std::vector<bool> stays;
  // By value that stays: the place on the communication lane of the last op that reads it, or none.
  // Its memory is free for another value once the compute lane waits for that op, or a later one.
  std::vector<int> lent_until;
  // By op of the communication lane: its place there.
  std::vector<int> place_of;
};

// `plans` by op.
RecordingPlan plan_recordings(const Graph& graph, std::span<const OpPlan> plans,
                              std::span<const Step> steps);

}  // namespace farskip
