#pragma once

#include "farskip/schedule/schedule.h"

namespace farskip {

struct MemoryOptions {
  bool at_bound = false;  // sizes at their bounds, else at the expected ones
  // As on a device (launch.h). How far the host runs ahead there is a matter of time; here it
  // always gets as far as it can.
  bool lanes_queue = false;
};

// Most bytes of activations alive at once when the schedule runs: outputs are allocated at launch
// (a part allocates the whole it lies in) and freed by free_after.
double peak_activation_bytes(const Graph& graph, const Schedule& schedule,
                             const MemoryOptions& options = {});

// Bytes of all parameters of one rank at expected sizes.
double parameter_bytes(const Graph& graph);

}  // namespace farskip
