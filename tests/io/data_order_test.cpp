#include "farskip/io/data_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "farskip/base/error.h"

namespace farskip {
namespace {

std::vector<uint64_t> epoch_of(const DataOrder& order, uint64_t epoch) {
  std::vector<uint64_t> windows;
  for (uint64_t i = 0; i < order.windows(); ++i) {
    windows.push_back(order.window_at(epoch * order.windows() + i));
  }
  return windows;
}

bool is_permutation_of_all(std::vector<uint64_t> windows) {
  std::sort(windows.begin(), windows.end());
  for (size_t i = 0; i < windows.size(); ++i) {
    if (windows[i] != i) return false;
  }
  return true;
}

TEST(Windows, ShareOneIdWithTheNext) {
  EXPECT_EQ(window_count(0, 4), 0u);
  EXPECT_EQ(window_count(1, 4), 0u);
  EXPECT_EQ(window_count(4, 4), 0u);
  EXPECT_EQ(window_count(5, 4), 1u);
  EXPECT_EQ(window_count(8, 4), 1u);
  EXPECT_EQ(window_count(9, 4), 2u);
  EXPECT_EQ(window_count(5, 1), 4u);
  EXPECT_THROW(window_count(5, 0), ConfigError);
}

TEST(DataOrder, EveryEpochIsAPermutationAndNoneAnother) {
  for (uint64_t windows :
       {1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 63, 64, 65, 100, 255, 256, 257, 1000, 4097, 65537}) {
    const DataOrder order(windows, 42);
    std::set<std::vector<uint64_t>> epochs;
    for (uint64_t epoch = 0; epoch < 3; ++epoch) {
      const auto all = epoch_of(order, epoch);
      ASSERT_TRUE(is_permutation_of_all(all)) << windows << " windows, epoch " << epoch;
      epochs.insert(all);
    }
    // Few windows have few orders.
    EXPECT_TRUE(epochs.size() == 3 || windows < 8) << windows;
  }
}

TEST(DataOrder, FollowsFromTheSeed) {
  EXPECT_EQ(epoch_of(DataOrder(100, 1), 0), epoch_of(DataOrder(100, 1), 0));
  EXPECT_NE(epoch_of(DataOrder(100, 1), 0), epoch_of(DataOrder(100, 2), 0));
}

TEST(DataOrder, IsTheSameOnEveryMachine) {
  const std::vector<uint64_t> first = DataOrder(1000, 7).sequences_of_step(0, 6);
  EXPECT_EQ(first, (std::vector<uint64_t>{655, 149, 871, 723, 950, 893}));
}

TEST(DataOrder, EveryWindowIsAsLikelyAtEveryPlace) {
  constexpr uint64_t windows = 10, epochs = 20000;
  const DataOrder order(windows, 3);
  std::vector<int> counts(windows * windows);
  for (uint64_t epoch = 0; epoch < epochs; ++epoch) {
    for (uint64_t i = 0; i < windows; ++i) {
      ++counts[i * windows + order.window_at(epoch * windows + i)];
    }
  }
  const double expected = double{epochs} / windows;
  double chi_squared = 0;
  for (const int count : counts) chi_squared += std::pow(count - expected, 2) / expected;
  // Of permutations, (windows - 1) / windows of it has 81 degrees of freedom: standard
  // deviation 12.7.
  EXPECT_LT(chi_squared * 9 / 10, 81 + 4 * 12.7);
}

TEST(DataOrder, NeighboursAreFarApart) {
  const DataOrder order(10000, 5);
  const auto all = epoch_of(order, 0);
  double distance = 0;
  for (size_t i = 1; i < all.size(); ++i) {
    distance += std::abs(static_cast<double>(all[i]) - static_cast<double>(all[i - 1]));
  }
  EXPECT_NEAR(distance / 9999 / 10000, 1.0 / 3, 0.02);
}

TEST(DataOrder, StepsFollowOneAnotherThroughEpochs) {
  const DataOrder order(10, 9);
  std::vector<uint64_t> steps;
  for (uint64_t step = 0; step < 10; ++step) {
    const auto windows = order.sequences_of_step(step, 4);
    ASSERT_EQ(windows.size(), 4u);
    steps.insert(steps.end(), windows.begin(), windows.end());
  }
  std::vector<uint64_t> epochs;
  for (uint64_t epoch = 0; epoch < 4; ++epoch) {
    const auto all = epoch_of(order, epoch);
    epochs.insert(epochs.end(), all.begin(), all.end());
  }
  EXPECT_EQ(steps, epochs) << "nothing is left out, and resuming at a step is going on";
}

TEST(DataOrder, ALargerStepIsTheSameOrder) {
  const DataOrder order(1000, 9);
  auto first = order.sequences_of_step(6, 4);
  const auto second = order.sequences_of_step(7, 4);
  first.insert(first.end(), second.begin(), second.end());
  EXPECT_EQ(order.sequences_of_step(3, 8), first);
}

TEST(DataOrder, FarPlacesOfLargeCorporaAreReached) {
  const DataOrder order((uint64_t{1} << 40) + 12345, 11);
  for (uint64_t place : {uint64_t{0}, uint64_t{1} << 39, uint64_t{1} << 62}) {
    EXPECT_LT(order.window_at(place), order.windows());
  }
  EXPECT_NE(order.window_at(0), order.window_at(1));
}

TEST(DataOrder, WrongArgumentsAreRefused) {
  EXPECT_THROW(DataOrder(0, 1), ConfigError);
  EXPECT_THROW(DataOrder((uint64_t{1} << 62) + 1, 1), ConfigError);
  EXPECT_THROW(DataOrder(10, 1).sequences_of_step(0, 0), ConfigError);
}

}  // namespace
}  // namespace farskip
