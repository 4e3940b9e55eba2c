#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace farskip {

// Neighbouring sequences of one length, none of zero: tokens [first, first + batch * length).
struct SequenceGroup {
  int64_t first = 0, batch = 0, length = 0;

  // Their tokens of x [T, ...] as [batch, length, ...].
  at::Tensor of(const at::Tensor& x) const {
    return x.narrow(0, first, batch * length).unflatten(0, {batch, length});
  }
};

// Cuts T flat tokens into sequences. A device takes neighbours of one length at once; a CPU's cache
// likes them one by one. Throws Error if lengths are negative or do not sum to T.
std::vector<SequenceGroup> group_sequences(const std::vector<int64_t>& lengths, int64_t tokens,
                                           bool one_by_one);

}  // namespace farskip
