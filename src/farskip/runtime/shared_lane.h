#pragma once

#include "farskip/runtime/compute_lane.h"
#include "farskip/runtime/recordings.h"

namespace farskip {

// What executors share whose steps run in turn: the compute lane, since libtorch gives memory that
// was freed on one stream to no other, and memory for what is recorded. Thread rule: one thread.
struct SharedLane {
  explicit SharedLane(at::Device device) : lane(device) {}
  const ComputeLane lane;
  RecordingMemory recorded;
};

}  // namespace farskip
