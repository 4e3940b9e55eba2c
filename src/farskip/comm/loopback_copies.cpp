#include "farskip/comm/loopback_copies.h"

#include <algorithm>

namespace farskip {
namespace {

void append(const Collective& part, int sender, std::vector<RowCopy>& copies) {
  const int64_t available = part.in.size(0);
  int64_t to = rows_before(part.out_rows, sender);
  int64_t left = part.out_rows[static_cast<size_t>(sender)];
  int64_t from = rows_before(part.in_rows, part.rank);
  while (left > 0 && available > 0) {
    from %= available;
    const int64_t rows = std::min(left, available - from);
    copies.push_back({to, from, rows});
    to += rows;
    from += rows;
    left -= rows;
  }
}

}  // namespace

LoopbackCopies loopback_copies(const Collective& all_to_all) {
  LoopbackCopies copies;
  for (int sender = 0; sender < all_to_all.size; ++sender) {
    append(all_to_all, sender, sender == all_to_all.rank ? copies.own : copies.arriving);
  }
  return copies;
}

std::vector<RowCopy> cut_copies(const std::vector<RowCopy>& copies, int64_t most) {
  std::vector<RowCopy> pieces;
  for (RowCopy copy : copies) {
    for (; copy.rows > most; copy.to += most, copy.from += most, copy.rows -= most) {
      pieces.push_back({copy.to, copy.from, most});
    }
    pieces.push_back(copy);
  }
  return pieces;
}

int64_t rows_of(const std::vector<RowCopy>& copies) {
  int64_t rows = 0;
  for (const RowCopy& copy : copies) rows += copy.rows;
  return rows;
}

}  // namespace farskip
