#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <span>

namespace farskip {

// Whether all_reduce and reduce_scatter can add this dtype: float, double, bfloat16, half, int,
// long.
bool can_sum(c10::ScalarType dtype);

// Is handed `count` sums, of elements from `at` on.
using StoreSums = std::function<void(int64_t at, const void* sums, int64_t count)>;

// Adds `count` elements of every rank's input in rank order, block by block, so that the bits do
// not depend on where the sum is done. bfloat16 and half are added in float and rounded once at the
// end; int and long wrap around. A block's inputs are read before it is stored, so `store` may
// overwrite them. The dtype must be one that can_sum knows.
void ordered_sum(c10::ScalarType dtype, std::span<const void* const> inputs, int64_t count,
                 const StoreSums& store);

}  // namespace farskip
