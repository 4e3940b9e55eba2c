#include "farskip/eval/grade.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "farskip/base/error.h"

namespace farskip {
namespace {

size_t index_of_largest(std::span<const double> values) {
  return static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

}  // namespace

Estimate estimate_mean(std::span<const double> values) {
  if (values.empty()) throw Error("no mean of no values");
  const auto count = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double value : values) sum += value;
  Estimate estimate{.mean = sum / count};
  for (const double value : values) squares += (value - estimate.mean) * (value - estimate.mean);
  if (values.size() > 1) estimate.standard_error = std::sqrt(squares / (count - 1) / count);
  return estimate;
}

Answer answer(const Question& question, std::span<const double> log_probabilities) {
  std::vector<double> normalized;
  for (size_t i = 0; i < log_probabilities.size(); ++i) {
    normalized.push_back(log_probabilities[i] / static_cast<double>(question.choices[i].bytes));
  }
  return {.log_probabilities = {log_probabilities.begin(), log_probabilities.end()},
          .chosen = index_of_largest(log_probabilities),
          .chosen_normalized = index_of_largest(normalized)};
}

Grade grade(const Task& task, std::span<const double> log_probabilities) {
  Grade result;
  std::vector<double> right, right_normalized;
  for (const Question& question : task.questions) {
    const size_t choices = question.choices.size();
    if (log_probabilities.size() < choices) break;
    result.answers.push_back(answer(question, log_probabilities.first(choices)));
    log_probabilities = log_probabilities.subspan(choices);
    right.push_back(result.answers.back().chosen == question.gold);
    right_normalized.push_back(result.answers.back().chosen_normalized == question.gold);
  }
  if (result.answers.size() != task.questions.size() || !log_probabilities.empty()) {
    throw Error("not one log-probability for every choice", {.where = task.name});
  }
  result.accuracy = estimate_mean(right);
  if (task.continuations_differ) result.normalized = estimate_mean(right_normalized);
  return result;
}

}  // namespace farskip
