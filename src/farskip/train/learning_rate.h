#pragma once

#include <cstdint>

namespace farskip {

// How the learning rate falls from its peak: not at all, in a straight line, or as half a cosine.
enum class Decay { constant, linear, cosine };

struct LearningRateConfig {
  double peak = 3e-4;
  double floor = 0.0;        // where linear and cosine end; from 0 to peak
  int64_t warmup_steps = 0;  // steps below the peak at the start
  Decay decay = Decay::cosine;
};

// Throws ConfigError for a peak that is negative or not finite, a floor outside [0, peak] or a
// negative warm-up.
void check(const LearningRateConfig& config);

// The learning rate of one step, counted from 0, of a run of `total` steps. With w warm-up steps,
// peak p and floor f:
//
//   p (step + 1) / (w + 1)                  for step <= w: equal rises, p is reached at step w
//   f + (p - f) (1 - x)                     linear, with x = min(1, (step - w) / (total - w))
//   f + (p - f) (1 + cos(pi x)) / 2         cosine
//
// so the floor is reached at step `total`, one after the last. Throws ConfigError as check, and for
// a negative step or total. Any thread.
double learning_rate(int64_t step, int64_t total, const LearningRateConfig& config);

}  // namespace farskip
