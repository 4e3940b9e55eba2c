#include "farskip/base/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "farskip/base/hash.h"

namespace farskip {
namespace {

TEST(Hash, KnownValues) {
  // From the published test vectors: FNV-1a of no bytes, splitmix64's first output for seed 0.
  static_assert(Hasher().value() == 0xCBF29CE484222325ULL);
  static_assert(splitmix64(0) == 0xE220A8397B1DCDAFULL);
  // FNV-1a of "foobar" is 85944171f73967e8; Hasher puts the length in front, so feed bytes alone.
  uint64_t state = 0xCBF29CE484222325ULL;
  for (const char character : std::string("foobar")) state = (state ^ character) * 0x100000001B3ULL;
  EXPECT_EQ(state, 0x85944171F73967E8ULL);
}

TEST(Hash, BoundariesOrderAndSignMatter) {
  EXPECT_NE(Hasher().add("ab").add("c").value(), Hasher().add("a").add("bc").value());
  EXPECT_NE(Hasher().add(1).add(2).value(), Hasher().add(2).add(1).value());
  EXPECT_NE(Hasher().add(0.0).value(), Hasher().add(-0.0).value());
  EXPECT_EQ(Hasher().add(int64_t{-1}).value(), Hasher().add(-1).value());
}

TEST(Hash, SeedsOfNamesDiffer) {
  std::set<uint64_t> seeds;
  for (int layer = 0; layer < 1000; ++layer) {
    seeds.insert(seed_for(1, "layers." + std::to_string(layer) + ".weight"));
    seeds.insert(seed_for(2, "layers." + std::to_string(layer) + ".weight"));
  }
  EXPECT_EQ(seeds.size(), 2000U);
}

TEST(Random, SameSeedSameNumbersOtherSeedOthers) {
  Random first(5), second(5), other(6);
  int equal_to_other = 0;
  for (int i = 0; i < 1000; ++i) {
    const uint64_t draw = first();
    ASSERT_EQ(draw, second());
    equal_to_other += draw == other();
  }
  EXPECT_EQ(equal_to_other, 0);
}

TEST(Random, KnownFirstNumbers) {
  // xoshiro256** seeded with four outputs of splitmix64 from seed 0.
  Random random(0);
  EXPECT_EQ(random(), 0x99EC5F36CB75F2B4ULL);
  EXPECT_EQ(random(), 0xBF6E1F784956452AULL);
}

TEST(Random, UniformStaysInRangeWithItsMoments) {
  Random random(11);
  double sum = 0, squares = 0;
  constexpr int count = 200000;
  for (int i = 0; i < count; ++i) {
    const double draw = random.uniform();
    ASSERT_GE(draw, 0);
    ASSERT_LT(draw, 1);
    sum += draw;
    squares += draw * draw;
  }
  EXPECT_NEAR(sum / count, 0.5, 0.005);
  EXPECT_NEAR(squares / count, 1.0 / 3, 0.005);
}

TEST(Random, NormalHasItsMoments) {
  Random random(12);
  double sum = 0, squares = 0, fourth = 0;
  constexpr int count = 200000;
  for (int i = 0; i < count; ++i) {
    const double draw = random.normal();
    ASSERT_TRUE(std::isfinite(draw));
    sum += draw;
    squares += draw * draw;
    fourth += std::pow(draw, 4);
  }
  EXPECT_NEAR(sum / count, 0, 0.01);
  EXPECT_NEAR(squares / count, 1, 0.02);
  EXPECT_NEAR(fourth / count, 3, 0.15);
}

TEST(Random, BelowIsEvenAndBounded) {
  Random random(13);
  std::vector<int> counts(6);
  for (int i = 0; i < 60000; ++i) ++counts.at(random.below(6));
  for (const int count : counts) EXPECT_NEAR(count, 10000, 500);
  EXPECT_EQ(random.below(0), 0U);
  EXPECT_EQ(random.below(1), 0U);
}

TEST(Random, ShuffleKeepsTheElementsAndReachesEveryOrder) {
  Random random(14);
  std::set<std::vector<int>> orders;
  for (int i = 0; i < 500; ++i) {
    std::vector<int> values = {1, 2, 3, 4};
    random.shuffle(values.begin(), values.end());
    ASSERT_EQ(std::accumulate(values.begin(), values.end(), 0), 10);
    orders.insert(values);
  }
  EXPECT_EQ(orders.size(), 24U);
  std::vector<int> none;
  random.shuffle(none.begin(), none.end());
}

}  // namespace
}  // namespace farskip
