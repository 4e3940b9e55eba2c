#pragma once

#include <vector>

namespace farskip {

// A stretch of time, seconds; half open, so that touching stretches do not overlap.
struct Interval {
  double start = 0, end = 0;
  double seconds() const { return end - start; }
  bool operator==(const Interval&) const = default;
};

// Sorted by start, disjoint, not touching, none empty. The functions below return such lists and,
// but for union_of, take them.
using Intervals = std::vector<Interval>;

// The time covered by any of `parts`: any order, overlaps allowed, empty ones dropped.
Intervals union_of(Intervals parts);
// The time covered by both.
Intervals intersection(const Intervals& a, const Intervals& b);
// The time covered by `a` and not by `b`.
Intervals difference(const Intervals& a, const Intervals& b);
// Seconds covered.
double total_seconds(const Intervals& intervals);

}  // namespace farskip
