#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "farskip/eval/task.h"

namespace farskip {

// A mean and its standard error: the standard deviation of the sample (n - 1) over sqrt(n). Of one
// value there is no error.
struct Estimate {
  double mean = 0;
  std::optional<double> standard_error;
};

// Throws Error for no values.
Estimate estimate_mean(std::span<const double> values);

// One question answered. Of equals the first choice is taken.
struct Answer {
  std::vector<double> log_probabilities;  // of the choices' continuations, nats
  size_t chosen = 0;                      // the largest
  size_t chosen_normalized = 0;           // the largest divided by the choice's bytes
};

Answer answer(const Question& question, std::span<const double> log_probabilities);

// The accuracies of lm-evaluation-harness.
struct Grade {
  Estimate accuracy;                   // acc
  std::optional<Estimate> normalized;  // acc_norm; only where continuations differ
  std::vector<Answer> answers;         // of the questions
};

// log_probabilities: of every choice of every question, in order. Throws Error for another number
// of them.
Grade grade(const Task& task, std::span<const double> log_probabilities);

}  // namespace farskip
