#pragma once

#include <span>
#include <vector>

#include "farskip/comm/collective.h"
#include "farskip/cuda/copy.h"

namespace farskip {

// Of rows of a collective's input to rows of its output.
using cuda::RowCopy;

// What an all_to_all brings a rank whose peers are taken to send what it sends to itself: its own
// rows of the input, and further ones behind them (from the start again behind the end) where more
// are expected.
struct LoopbackCopies {
  std::vector<RowCopy> own;       // stay on this rank
  std::vector<RowCopy> arriving;  // stand in for what peers send, in rank order
};
LoopbackCopies loopback_copies(const Collective& all_to_all);

// Cuts each copy evenly into pieces of about `rows` rows, then puts neighbours together into parts
// of about as many; parts[i] is a range of the pieces.
struct CopyParts {
  std::vector<RowCopy> pieces;
  std::vector<std::span<const RowCopy>> parts;
};
CopyParts cut_copies(const std::vector<RowCopy>& copies, int64_t rows);

int64_t rows_of(std::span<const RowCopy> copies);

}  // namespace farskip
