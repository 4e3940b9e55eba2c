#pragma once

#include "farskip/schedule/schedule.h"

namespace farskip {

// Most bytes of activations alive at once when the schedule runs: outputs are allocated at launch
// (a part allocates the whole it lies in) and freed by free_after. At expected sizes, or at bounds.
double peak_activation_bytes(const Graph& graph, const Schedule& schedule, bool at_bound = false);

// Bytes of all parameters of one rank at expected sizes.
double parameter_bytes(const Graph& graph);

}  // namespace farskip
