#include "farskip/comm/chaos.h"

#include <gtest/gtest.h>

#include "farskip/comm/hook.h"
#include "farskip/comm/local.h"
#include "farskip/comm/ranks.h"
#include "farskip/comm/throttled.h"
#include "script.h"

namespace farskip {
namespace {

using namespace testing;

class ChaosRanks : public ::testing::TestWithParam<int> {};

TEST_P(ChaosRanks, SameBitsUnderAnySeed) {
  for (const uint64_t seed : {1, 2, 3}) {
    Random random(8);
    std::vector<Step> steps;
    for (int i = 0; i < 50; ++i) steps.push_back(random_step(GetParam(), random));
    run_and_check(make_chaos(make_local_groups(GetParam()), seed, {.max_delay_seconds = 1e-3}),
                  steps);
  }
}

TEST_P(ChaosRanks, OverALinkAndUnderOne) {
  Random random(9);
  std::vector<Step> steps;
  for (int i = 0; i < 10; ++i) steps.push_back(random_step(GetParam(), random));
  const LinkOptions link{1e9, 100e-6};
  const ChaosOptions options{.max_delay_seconds = 5e-4};
  const auto outer = make_chaos(make_throttled(make_local_groups(GetParam()), link), 1, options);
  EXPECT_EQ(
      outer[0]->describe(),
      "chaos(seed 1, delays up to 500.00 us) over throttled(1.00 GB/s, 100.00 us) over local");
  run_and_check(outer, steps);
  EXPECT_EQ(link_report(*outer[0])->collectives, 10);
  run_and_check(make_throttled(make_chaos(make_local_groups(GetParam()), 1, options), link), steps);
}

INSTANTIATE_TEST_SUITE_P(Ranks, ChaosRanks, ::testing::Values(1, 2, 4));

// Hides the end of the first collective for longer than any machine takes for the second.
class LateFirst final : public Hook {
 public:
  Clock::duration visibility_delay(int64_t index) override {
    return std::chrono::seconds(index == 0 ? 100 : 0);
  }
  std::string describe() const override { return "late first"; }
};

TEST(Chaos, WorksMayFinishInAnotherOrder) {
  const auto groups = make_local_groups(1);
  dynamic_cast<HookableGroup&>(*groups[0]).add_hook(std::make_shared<LateFirst>());
  const Work first = groups[0]->barrier(0), second = groups[0]->barrier(1);
  second.synchronize();
  EXPECT_TRUE(second.done());
  EXPECT_FALSE(first.done());
  EXPECT_GT(first.times().finished, second.times().finished);
}

TEST(Chaos, DelaysDoReorder) {
  const auto groups = make_chaos(make_local_groups(1), 5);
  Hook& hook = *dynamic_cast<HookableGroup&>(*groups[0]).hooks()[0];
  int overtaken = 0;
  for (int64_t i = 0; i < 100; ++i) {
    overtaken +=
        hook.entry_delay(i + 1, 0) + hook.visibility_delay(i + 1) < hook.visibility_delay(i);
  }
  EXPECT_GT(overtaken, 5);
}

TEST(Chaos, DelaysFollowFromTheSeed) {
  const auto delays = [](uint64_t seed, size_t rank) {
    const auto groups = make_chaos(make_local_groups(2), seed, {});
    Hook& hook = *dynamic_cast<HookableGroup&>(*groups[rank]).hooks()[0];
    std::vector<Clock::duration> result;
    for (int64_t i = 0; i < 50; ++i) {
      result.push_back(hook.entry_delay(i, 0));
      result.push_back(hook.visibility_delay(i));
      EXPECT_LE(result.back(), std::chrono::milliseconds(2));
      EXPECT_GE(result.back(), Clock::duration::zero());
    }
    return result;
  };
  EXPECT_EQ(delays(1, 0), delays(1, 0));
  EXPECT_NE(delays(1, 0), delays(2, 0));
  EXPECT_NE(delays(1, 0), delays(1, 1));
}

}  // namespace
}  // namespace farskip
