#pragma once

#include "farskip/runtime/kernel.h"

namespace farskip {

// All ops of a forward step whose experts exchange tokens (ParallelForm::expert_all_to_all), by the
// functions of nn, on any device. The executor needs a RoutingState (routing_state.h) as its
// KernelState.
KernelTable forward_kernels();

// The parts that forward_kernels puts together: what the tokens' rank does, what moves between
// ranks, and what the experts' rank does besides computing them.
void add_routing_kernels(KernelTable& table);
void add_exchange_kernels(KernelTable& table);
void add_arrival_kernels(KernelTable& table);

}  // namespace farskip
