#include "farskip/runtime/contention.h"

#include <gtest/gtest.h>

#include "farskip/comm/local.h"
#include "farskip/comm/throttled.h"

namespace farskip::testing {
namespace {

void expect_factors(const Contention& found) {
  for (double factor : {found.compute, found.communication}) {
    EXPECT_GE(factor, 1);
    EXPECT_LE(factor, 4);
  }
}

TEST(Contention, IsMeasuredOnAnyNumberOfRanksAndLinks) {
  for (const double share : {0.05, 0.3, 1.0}) {
    const ContentionOptions options{.bytes = 1 << 20, .share = share, .seconds = 0.02};
    for (int ranks : {2, 3}) {
      expect_factors(measure_contention(make_local_groups(ranks), options));
    }
    // An exchange that takes longer than all products of a turn would.
    expect_factors(measure_contention(
        make_throttled(make_local_groups(2), {.bytes_per_second = 2e7, .latency_seconds = 1e-3}),
        options));
  }
}

TEST(Contention, OfOneRankIsNone) {
  const Contention found = measure_contention(make_local_groups(1));
  EXPECT_EQ(found.compute, 1);
  EXPECT_EQ(found.communication, 1);
}

}  // namespace
}  // namespace farskip::testing
