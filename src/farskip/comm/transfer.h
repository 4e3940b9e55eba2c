#pragma once

#include <cstdint>
#include <span>

#include "farskip/comm/collective.h"

namespace farskip {

// Elements [begin, end) of a flattened tensor.
struct Slice {
  int64_t begin = 0, end = 0;
  int64_t count() const { return end - begin; }
};

// The slice that rank `rank` of `size` sums in an all_reduce of `count` elements.
Slice all_reduce_slice(int64_t count, int size, int rank);

// Does rank `rank`'s share of the data movement of one collective, given every rank's part in it
// (which agree, see find_disagreement). Once each rank's share is done, so is the collective. Sums
// as ordered_sum, each element by one rank: the same bits on every rank and in every run.
// Thread rule: the shares may run concurrently; each writes memory that no other share touches.
void transfer(std::span<const Collective* const> parts, int rank);

}  // namespace farskip
