#include "farskip/base/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <vector>

namespace farskip {
namespace {

TEST(ParallelFor, EveryIndexOnce) {
  for (const size_t count : {0, 1, 2, 7, 1000}) {
    std::vector<int> calls(count, 0);
    parallel_for(count, [&](size_t i) { ++calls[i]; });
    EXPECT_EQ(calls, std::vector<int>(count, 1));
  }
}

TEST(ParallelFor, TheErrorOfTheLowestIndexIsRethrownAndTheRestIsLeftOut) {
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> begun = 0;
    try {
      parallel_for(10000, [&](size_t i) {
        ++begun;
        if (i % 2 == 1) throw std::runtime_error(std::to_string(i));
      });
      FAIL() << "nothing was thrown";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "1");
    }
    EXPECT_LT(begun, 10000);
  }
}

}  // namespace
}  // namespace farskip
