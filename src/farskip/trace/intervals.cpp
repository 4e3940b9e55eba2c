#include "farskip/trace/intervals.h"

#include <algorithm>

namespace farskip {

Intervals union_of(Intervals parts) {
  std::erase_if(parts, [](const Interval& part) { return !(part.end > part.start); });
  std::sort(parts.begin(), parts.end(),
            [](const Interval& a, const Interval& b) { return a.start < b.start; });
  Intervals merged;
  for (const Interval& part : parts) {
    if (merged.empty() || part.start > merged.back().end) {
      merged.push_back(part);
    } else {
      merged.back().end = std::max(merged.back().end, part.end);
    }
  }
  return merged;
}

Intervals intersection(const Intervals& a, const Intervals& b) {
  Intervals common;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const Interval both{std::max(a[i].start, b[j].start), std::min(a[i].end, b[j].end)};
    if (both.end > both.start) common.push_back(both);
    (a[i].end < b[j].end) ? ++i : ++j;
  }
  return common;
}

Intervals difference(const Intervals& a, const Intervals& b) {
  Intervals left;
  size_t first = 0;
  for (const Interval& whole : a) {
    while (first < b.size() && b[first].end <= whole.start) ++first;
    double start = whole.start;
    for (size_t j = first; j < b.size() && b[j].start < whole.end; ++j) {
      if (b[j].start > start) left.push_back({start, b[j].start});
      start = std::max(start, b[j].end);
    }
    if (start < whole.end) left.push_back({start, whole.end});
  }
  return left;
}

double total_seconds(const Intervals& intervals) {
  double seconds = 0;
  for (const Interval& interval : intervals) seconds += interval.seconds();
  return seconds;
}

}  // namespace farskip
