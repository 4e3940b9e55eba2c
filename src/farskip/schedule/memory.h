#pragma once

#include "farskip/schedule/evaluate.h"

namespace farskip {

struct MemoryOptions {
  bool at_bound = false;  // sizes at their bounds, else at the expected ones
  // As on a device (launch.h), where the schedule was played at these times: how far the host runs
  // ahead is a matter of time. Null: the host computes.
  const OpTimes* on_device = nullptr;
  double launch_seconds = 0;  // as they were played with
  // And recorded: what no collective reads goes with the launch of its last reader, however far
  // behind the host is with others.
  bool recorded = false;
};

// Most bytes of activations alive at once when the schedule runs: outputs are allocated at launch
// (a part allocates the whole it lies in) and freed by free_after.
double peak_activation_bytes(const Graph& graph, const Schedule& schedule,
                             const MemoryOptions& options = {});

// Bytes of all parameters of one rank at expected sizes.
double parameter_bytes(const Graph& graph);

}  // namespace farskip
