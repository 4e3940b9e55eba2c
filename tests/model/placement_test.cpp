#include "farskip/model/placement.h"

#include <gtest/gtest.h>

#include "farskip/base/error.h"

namespace farskip {
namespace {

TEST(Placement, ContiguousIsAsEvenAsCanBe) {
  const Placement placement = Placement::contiguous(10, 4);
  EXPECT_EQ(placement.experts_of(0), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(placement.experts_of(1), (std::vector<int>{3, 4, 5}));
  EXPECT_EQ(placement.experts_of(2), (std::vector<int>{6, 7}));
  EXPECT_EQ(placement.experts_of(3), (std::vector<int>{8, 9}));
  EXPECT_EQ(placement.most_local_experts(), 3);
}

TEST(Placement, EveryExpertHasTheRankThatListsIt) {
  for (int experts = 1; experts < 40; ++experts) {
    for (int ranks = 1; ranks <= experts; ++ranks) {
      const Placement placement = Placement::contiguous(experts, ranks);
      ASSERT_EQ(placement.experts(), experts);
      ASSERT_EQ(placement.ranks(), ranks);
      int total = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        for (const int expert : placement.experts_of(rank)) {
          ASSERT_EQ(placement.rank_of(expert), rank);
          ++total;
        }
      }
      ASSERT_EQ(total, experts);
      ASSERT_EQ(placement.most_local_experts(), (experts + ranks - 1) / ranks);
    }
  }
}

TEST(Placement, TableMayLeaveRanksEmpty) {
  const Placement placement = Placement::from_table({{1, 3}, {}, {0, 2}});
  EXPECT_EQ(placement.rank_of(3), 0);
  EXPECT_EQ(placement.rank_of(0), 2);
  EXPECT_TRUE(placement.experts_of(1).empty());
}

TEST(Placement, ImpossibleOnesAreRefused) {
  EXPECT_THROW(Placement::contiguous(8, 0), ConfigError);
  EXPECT_THROW(Placement::contiguous(8, -2), ConfigError);
  EXPECT_THROW(Placement::contiguous(8, 9), ConfigError);
  EXPECT_THROW(Placement::contiguous(0, 1), ConfigError);
  EXPECT_THROW(Placement::contiguous(-3, 1), ConfigError);
  EXPECT_THROW(Placement::from_table({}), ConfigError);
  EXPECT_THROW(Placement::from_table({{}, {}}), ConfigError);
  EXPECT_THROW(Placement::from_table({{0, 1}, {1, 2}}), ConfigError) << "twice";
  EXPECT_THROW(Placement::from_table({{0}, {2}}), ConfigError) << "a gap";
  EXPECT_THROW(Placement::from_table({{-1, 0}}), ConfigError);
  EXPECT_THROW(Placement::from_table({{1, 0}}), ConfigError) << "not ascending";
}

}  // namespace
}  // namespace farskip
