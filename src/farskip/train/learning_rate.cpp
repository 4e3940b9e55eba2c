#include "farskip/train/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "farskip/base/error.h"

namespace farskip {
namespace {

[[noreturn]] void fail(const std::string& field, const std::string& expected,
                       const std::string& found) {
  throw ConfigError("wrong value",
                    {.where = "learning rate: " + field, .expected = expected, .found = found});
}

// The share of the way from peak to floor that is left, from 1 to 0.
double share_left(Decay decay, double progress) {
  switch (decay) {
    case Decay::constant:
      return 1.0;
    case Decay::linear:
      return 1.0 - progress;
    case Decay::cosine:
      return 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
  }
  fail("decay", "constant, linear or cosine", std::to_string(static_cast<int>(decay)));
}

}  // namespace

void check(const LearningRateConfig& config) {
  if (!std::isfinite(config.peak) || config.peak < 0) {
    fail("peak", "a number of at least 0", std::to_string(config.peak));
  }
  if (!(config.floor >= 0 && config.floor <= config.peak)) {
    fail("floor", "0 to the peak, " + std::to_string(config.peak), std::to_string(config.floor));
  }
  if (config.warmup_steps < 0) {
    fail("warm-up steps", "at least 0", std::to_string(config.warmup_steps));
  }
}

double learning_rate(int64_t step, int64_t total, const LearningRateConfig& config) {
  check(config);
  if (step < 0) fail("step", "at least 0", std::to_string(step));
  if (total < 0) fail("total steps", "at least 0", std::to_string(total));
  const int64_t warmup = config.warmup_steps;
  if (step <= warmup) {
    return config.peak * (static_cast<double>(step) + 1) / (static_cast<double>(warmup) + 1);
  }
  const double progress =
      step >= total ? 1.0
                    : static_cast<double>(step - warmup) / static_cast<double>(total - warmup);
  return config.floor + (config.peak - config.floor) * share_left(config.decay, progress);
}

}  // namespace farskip
