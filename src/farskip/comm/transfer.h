#pragma once

#include <c10/core/ScalarType.h>

#include <span>

#include "farskip/comm/collective.h"

namespace farskip {

// Whether all_reduce and reduce_scatter can add this dtype: float, double, bfloat16, half, int,
// long.
bool can_sum(c10::ScalarType dtype);

// Does rank `rank`'s share of the data movement of one collective, given every rank's part in it
// (which agree, see find_disagreement). Once each rank's share is done, so is the collective.
//
// Sums are added in rank order, each element by one rank: the same bits on every rank and in every
// run. bfloat16 and half are added in float and rounded once at the end; long wraps around.
// Thread rule: the shares may run concurrently; each writes memory that no other share touches.
void transfer(std::span<const Collective* const> parts, int rank);

}  // namespace farskip
