#include "farskip/trace/intervals.h"

#include <gtest/gtest.h>

#include <cmath>

#include "farskip/base/random.h"

namespace farskip {
namespace {

TEST(Intervals, UnionMergesWhatTouchesAndDropsWhatIsEmpty) {
  EXPECT_EQ(union_of({{3, 4}, {0, 1}, {1, 2}, {5, 5}, {3.5, 3.75}, {7, 6}}),
            (Intervals{{0, 2}, {3, 4}}));
  EXPECT_TRUE(union_of({}).empty());
  EXPECT_TRUE(union_of({{std::nan(""), 1}}).empty());
}

TEST(Intervals, IntersectionAndDifference) {
  const Intervals a = {{0, 4}, {6, 8}}, b = {{1, 2}, {3, 7}};
  EXPECT_EQ(intersection(a, b), (Intervals{{1, 2}, {3, 4}, {6, 7}}));
  EXPECT_EQ(difference(a, b), (Intervals{{0, 1}, {2, 3}, {7, 8}}));
  EXPECT_EQ(difference(a, {}), a);
  EXPECT_TRUE(intersection(a, {}).empty());
  EXPECT_TRUE(difference({}, a).empty());
}

// Cell i of the grid is the time [i, i + 1) / 16.
bool covers(const Intervals& intervals, int cell) {
  for (const Interval& interval : intervals) {
    if (interval.start <= cell / 16.0 && (cell + 1) / 16.0 <= interval.end) return true;
  }
  return false;
}

Intervals random_intervals(Random& random) {
  Intervals parts;
  for (uint64_t count = random.below(8); count > 0; --count) {
    const double start = static_cast<double>(random.below(60)) / 16;
    parts.push_back({start, start + static_cast<double>(random.below(12)) / 16});
  }
  return parts;
}

TEST(Intervals, AgreeWithGridCellsOnRandomInput) {
  Random random(1);
  for (int round = 0; round < 2000; ++round) {
    const Intervals raw_a = random_intervals(random), raw_b = random_intervals(random);
    const Intervals a = union_of(raw_a), b = union_of(raw_b);
    const Intervals both = intersection(a, b), only_a = difference(a, b);
    for (int cell = 0; cell < 80; ++cell) {
      ASSERT_EQ(covers(a, cell), covers(raw_a, cell));
      ASSERT_EQ(covers(both, cell), covers(a, cell) && covers(b, cell));
      ASSERT_EQ(covers(only_a, cell), covers(a, cell) && !covers(b, cell));
    }
    for (const Intervals& list : {a, both, only_a}) {
      for (size_t i = 0; i < list.size(); ++i) {
        ASSERT_LT(list[i].start, list[i].end);
        if (i > 0) {
          ASSERT_LE(list[i - 1].end, list[i].start);
        }
      }
    }
    ASSERT_EQ(total_seconds(both) + total_seconds(only_a), total_seconds(a));
  }
}

}  // namespace
}  // namespace farskip
