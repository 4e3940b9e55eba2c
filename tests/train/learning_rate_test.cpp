#include "farskip/train/learning_rate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "farskip/base/error.h"

namespace farskip {
namespace {

// By hand: 4 warm-up steps, 14 in all, so ten steps of decay from 1 to 0.2.
LearningRateConfig config_of(Decay decay) {
  return {.peak = 1.0, .floor = 0.2, .warmup_steps = 4, .decay = decay};
}

double rate(int64_t step, Decay decay) { return learning_rate(step, 14, config_of(decay)); }

TEST(LearningRate, WarmsUpInEqualRises) {
  for (const Decay decay : {Decay::constant, Decay::linear, Decay::cosine}) {
    EXPECT_DOUBLE_EQ(rate(0, decay), 0.2);
    EXPECT_DOUBLE_EQ(rate(1, decay), 0.4);
    EXPECT_DOUBLE_EQ(rate(3, decay), 0.8);
    EXPECT_DOUBLE_EQ(rate(4, decay), 1.0);
  }
}

TEST(LearningRate, FallsAsSaid) {
  EXPECT_DOUBLE_EQ(rate(5, Decay::linear), 0.92);
  EXPECT_DOUBLE_EQ(rate(9, Decay::linear), 0.6);
  EXPECT_DOUBLE_EQ(rate(13, Decay::linear), 0.28);
  EXPECT_DOUBLE_EQ(rate(14, Decay::linear), 0.2);
  EXPECT_DOUBLE_EQ(rate(9, Decay::cosine), 0.6);
  // A third of the way would be cos 60 degrees; 2.5 of 10 steps are 45 degrees.
  EXPECT_DOUBLE_EQ(learning_rate(9, 24, config_of(Decay::cosine)),
                   0.2 + 0.8 * (1 + std::sqrt(0.5)) / 2);
  EXPECT_DOUBLE_EQ(rate(14, Decay::cosine), 0.2);
  EXPECT_DOUBLE_EQ(rate(13, Decay::constant), 1.0);
}

TEST(LearningRate, StaysAtTheFloorBehindTheEnd) {
  for (const int64_t step : {int64_t{14}, int64_t{15}, std::numeric_limits<int64_t>::max()}) {
    EXPECT_DOUBLE_EQ(rate(step, Decay::linear), 0.2);
    EXPECT_DOUBLE_EQ(rate(step, Decay::cosine), 0.2);
    EXPECT_DOUBLE_EQ(rate(step, Decay::constant), 1.0);
  }
}

TEST(LearningRate, OddRuns) {
  LearningRateConfig config = config_of(Decay::linear);
  EXPECT_DOUBLE_EQ(learning_rate(0, 0, config), 0.2) << "no steps";
  EXPECT_DOUBLE_EQ(learning_rate(2, 3, config), 0.6) << "warm-up longer than the run";
  EXPECT_DOUBLE_EQ(learning_rate(5, 3, config), 0.2);
  config.warmup_steps = 0;
  EXPECT_DOUBLE_EQ(learning_rate(0, 1, config), 1.0) << "a run of one step trains at the peak";
  EXPECT_DOUBLE_EQ(learning_rate(1, 2, config), 0.6);
  EXPECT_DOUBLE_EQ(learning_rate(0, 0, {.peak = 0.0}), 0.0);
}

TEST(LearningRate, NeverRisesAfterTheWarmUpAndStaysInRange) {
  for (const Decay decay : {Decay::constant, Decay::linear, Decay::cosine}) {
    double before = 1.0;
    for (int64_t step = 4; step < 40; ++step) {
      const double now = learning_rate(step, 30, config_of(decay));
      EXPECT_LE(now, before);
      EXPECT_GE(now, 0.2);
      before = now;
    }
  }
}

TEST(LearningRate, RefusesNonsense) {
  const auto refused = [](LearningRateConfig config) {
    EXPECT_THROW(learning_rate(0, 1, config), ConfigError);
  };
  refused({.peak = -1});
  refused({.peak = std::nan("")});
  refused({.peak = INFINITY});
  refused({.peak = 1, .floor = 2});
  refused({.peak = 1, .floor = -0.1});
  refused({.peak = 1, .floor = std::nan("")});
  refused({.peak = 1, .warmup_steps = -1});
  EXPECT_THROW(learning_rate(-1, 1, {}), ConfigError);
  EXPECT_THROW(learning_rate(0, -1, {}), ConfigError);
}

}  // namespace
}  // namespace farskip
