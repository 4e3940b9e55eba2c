#pragma once

#include "farskip/graph/build_values.h"

namespace farskip {

// Adds the routed experts of a layer, from the router to the sum of what experts made of each
// token, in the parallel form and dispatch form of the step. `in`: the normed tokens. The value
// returned is a partial sum in a replicated step.
ValueId add_routed_experts(StepValues& step, int layer, ValueId in);

}  // namespace farskip
