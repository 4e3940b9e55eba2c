#include "farskip/runtime/sizes.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "farskip/base/random.h"
#include "farskip/runtime/expert_layout.h"
#include "farskip/runtime/session.h"

namespace farskip::testing {
namespace {

TEST(Cuts, RowsAreEvenAndNeverTooFew) {
  for (int64_t rows = 0; rows < 60; ++rows) {
    for (int parts = 1; parts < 8; ++parts) {
      int64_t next = 0, longest = rows;
      for (int part = 0; part < parts; ++part) {
        const Range range = cut_rows(rows, part, parts);
        EXPECT_EQ(range.first, next);
        next = range.last;
        if (range.size() > 0 && range.size() < rows) {
          EXPECT_GE(range.size(), least_part_rows);
        }
        EXPECT_LE(range.size(), longest);
        longest = range.size();
      }
      EXPECT_EQ(next, rows);
    }
  }
  EXPECT_EQ(cut_rows(10, 0, 3), (Range{0, 5}));
  EXPECT_EQ(cut_rows(10, 2, 3), (Range{10, 10}));
}

TEST(Cuts, SequencesStayWhole) {
  Random random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<int64_t> lengths(random.below(9));
    for (int64_t& length : lengths) length = 1 + static_cast<int64_t>(random.below(50));
    const int parts = 1 + static_cast<int>(random.below(5));
    int64_t next = 0;
    for (int part = 0; part < parts; ++part) {
      const Range range = cut_sequences(lengths, part, parts);
      EXPECT_EQ(range.first, next);
      EXPECT_LE(range.first, range.last);
      next = range.last;
    }
    EXPECT_EQ(next, static_cast<int64_t>(lengths.size()));
  }
  const std::vector<int64_t> lengths = {10, 10, 10, 30};
  EXPECT_EQ(cut_sequences(lengths, 0, 2), (Range{0, 3}));
}

TEST(Cuts, MicroBatchesAndRanks) {
  EXPECT_EQ(micro_batch_sequences(5, 0, 2), (Range{0, 3}));
  EXPECT_EQ(micro_batch_sequences(5, 1, 2), (Range{3, 5}));
  EXPECT_EQ(micro_batch_sequences(1, 1, 2), (Range{1, 1}));
  EXPECT_EQ(distribute(5, 3), (std::vector<Range>{{0, 2}, {2, 4}, {4, 5}}));
  EXPECT_EQ(distribute(2, 4), (std::vector<Range>{{0, 1}, {1, 2}, {2, 2}, {2, 2}}));
}

TEST(ExpertLayout, PositionsAreABijectionOfContiguousBlocks) {
  const Placement placement = Placement::from_table({{0, 5, 6}, {1, 2}, {3, 4, 7, 8}});
  for (int chunks : {1, 2}) {
    const ExpertLayout layout(placement, chunks);
    const int64_t* position = layout.position_of_expert().const_data_ptr<int64_t>();
    std::set<int64_t> seen(position, position + 9);
    EXPECT_EQ(seen.size(), 9u);
    EXPECT_EQ(*seen.begin(), 0);
    EXPECT_EQ(*seen.rbegin(), 8);
    int64_t next = 0;
    for (int chunk = 0; chunk < chunks; ++chunk) {
      EXPECT_EQ(layout.positions(chunk).first, next);
      for (int rank = 0; rank < 3; ++rank) {
        const Range range = layout.positions(chunk, rank);
        const Range local = layout.local_experts(chunk, rank);
        EXPECT_EQ(range.first, next);
        EXPECT_EQ(range.size(), local.size());
        for (int64_t e = local.first; e < local.last; ++e) {
          EXPECT_EQ(position[placement.experts_of(rank)[e]], next++);
        }
      }
      EXPECT_EQ(layout.positions(chunk).last, next);
    }
  }
}

}  // namespace
}  // namespace farskip::testing
