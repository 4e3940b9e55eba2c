#pragma once

#include "farskip/runtime/kernel.h"

namespace farskip {

// The ops of an update (graph/update.h). The executor needs a TrainingState as its KernelState, and
// the gradients and weights of its ParameterStore. A step whose sum of squares is not finite
// changes no parameter.
void add_update_kernels(KernelTable& table);

}  // namespace farskip
