#pragma once

#include "farskip/runtime/kernel.h"

namespace farskip {

// All ops of a forward step whose experts exchange tokens (ParallelForm::expert_all_to_all), by the
// functions of nn, on any device. The executor needs a RoutingState (routing_state.h) as its
// KernelState. Dispatch is per expert and sends rows as they are; other forms: UnsupportedError.
KernelTable forward_kernels();

// The parts that forward_kernels puts together.
void add_routing_kernels(KernelTable& table);

}  // namespace farskip
