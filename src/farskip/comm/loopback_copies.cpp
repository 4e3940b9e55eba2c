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

CopyParts cut_copies(const std::vector<RowCopy>& copies, int64_t rows) {
  CopyParts cut;
  for (const RowCopy& copy : copies) {
    const int64_t parts = std::max<int64_t>(1, (copy.rows + rows / 2) / rows);
    for (int64_t i = 0; i < parts; ++i) {
      const int64_t first = copy.rows * i / parts, last = copy.rows * (i + 1) / parts;
      cut.pieces.push_back({copy.to + first, copy.from + first, last - first});
    }
  }
  for (size_t first = 0; first < cut.pieces.size();) {
    size_t last = first;
    int64_t taken = 0;
    while (last < cut.pieces.size() && 2 * taken < rows) taken += cut.pieces[last++].rows;
    cut.parts.push_back(std::span(cut.pieces).subspan(first, last - first));
    first = last;
  }
  return cut;
}

int64_t rows_of(std::span<const RowCopy> copies) {
  int64_t rows = 0;
  for (const RowCopy& copy : copies) rows += copy.rows;
  return rows;
}

}  // namespace farskip
