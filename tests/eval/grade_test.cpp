#include "farskip/eval/grade.h"

#include <gtest/gtest.h>

#include <cmath>

#include "farskip/base/error.h"

namespace farskip {
namespace {

Question question(size_t gold, const std::vector<size_t>& bytes) {
  Question question{.gold = gold};
  for (const size_t count : bytes) question.choices.push_back({"", "", count});
  return question;
}

TEST(Estimates, StandardErrorsAreOfTheSample) {
  const Estimate estimate = estimate_mean(std::vector<double>{1, 0, 0, 1, 1});
  EXPECT_DOUBLE_EQ(estimate.mean, 0.6);
  // sqrt(p (1 - p) / (n - 1))
  EXPECT_DOUBLE_EQ(estimate.standard_error.value(), std::sqrt(0.6 * 0.4 / 4));
  EXPECT_FALSE(estimate_mean(std::vector<double>{3}).standard_error);
  EXPECT_THROW(estimate_mean({}), Error);
}

TEST(Grading, TheLikeliestChoiceIsTaken) {
  const Answer chosen = answer(question(0, {1, 10, 4}), std::vector<double>{-3, -9, -4});
  EXPECT_EQ(chosen.chosen, 0u);
  EXPECT_EQ(chosen.chosen_normalized, 1u) << "-3, -0.9, -1";
  EXPECT_EQ(answer(question(0, {2, 2}), std::vector<double>{-1, -1}).chosen, 0u) << "the first";
}

TEST(Grading, AccuraciesAreOverAllQuestions) {
  const Task task{.name = "t",
                  .questions = {question(0, {1, 10}), question(1, {1, 1}), question(0, {1, 1, 1})}};
  const Grade result = grade(task, std::vector<double>{-3, -9, -2, -1, -5, -4, -6});
  EXPECT_DOUBLE_EQ(result.accuracy.mean, 2. / 3);
  EXPECT_DOUBLE_EQ(result.normalized.value().mean, 1. / 3);
  EXPECT_EQ(result.answers.size(), 3u);
  EXPECT_EQ(result.answers[2].chosen, 1u);
}

TEST(Grading, WhereContextsDifferNothingIsNormalized) {
  const Task task{.name = "t", .questions = {question(1, {5, 5})}, .continuations_differ = false};
  const Grade result = grade(task, std::vector<double>{-2, -1});
  EXPECT_DOUBLE_EQ(result.accuracy.mean, 1);
  EXPECT_FALSE(result.normalized);
}

TEST(Grading, EveryChoiceNeedsOneScore) {
  const Task task{.name = "t", .questions = {question(1, {5, 5}), question(1, {5, 5})}};
  EXPECT_THROW(grade(task, std::vector<double>{-2, -1, -1}), Error);
  EXPECT_THROW(grade(task, std::vector<double>{-2, -1, -1, -1, -1}), Error);
}

}  // namespace
}  // namespace farskip
