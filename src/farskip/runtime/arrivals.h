#pragma once

#include <span>
#include <vector>

#include "farskip/schedule/schedule.h"

namespace farskip {

// What a collective brings to recorded ops, which find it in the same place in every step.
struct Arrival {
  ValueId value = none;
  // Arrivals of one slot lie in the same memory: each is read before the next one can come.
  int slot = 0;
};

// Places for `values`, which ops of the communication lane make, or all parts of which they make,
// in launch order. One that this lane reads too has a slot of its own.
std::vector<Arrival> plan_arrivals(const Graph& graph, std::span<const Step> steps,
                                   const std::vector<ValueId>& values);

}  // namespace farskip
