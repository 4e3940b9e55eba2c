#include "farskip/eval/scoring.h"

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "farskip/base/error.h"

namespace farskip {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;
using testing::IsEmpty;

at::Tensor logits_of(const std::vector<float>& values, int64_t columns) {
  return at::tensor(values).view({-1, columns});
}

TEST(Scoring, IsTheLogOfTheSoftmaxOfTheRowBefore) {
  // Probabilities by row: 1/4 1/4 1/2; 1/8 3/4 1/8; the rest of the rows' scale falls out.
  const at::Tensor logits =
      logits_of({0, 0, std::log(2.f), std::log(1.f) + 5, std::log(6.f) + 5, std::log(1.f) + 5}, 3);
  EXPECT_THAT(log_probabilities(logits, std::vector<Request>{{{0, 2, 1}, 2}}),
              ElementsAre(DoubleNear(std::log(1. / 2 * 3 / 4), 1e-6)));
  EXPECT_THAT(log_probabilities(logits, std::vector<Request>{{{0, 2, 1}, 1}}),
              ElementsAre(DoubleNear(std::log(3. / 4), 1e-6)))
      << "only the last is scored";
}

TEST(Scoring, RequestsFollowOneAnother) {
  const at::Tensor logits = logits_of({0, 0, std::log(3.f), 0, 0, std::log(3.f)}, 2);
  const std::vector<Request> requests = {{{1, 0}, 1}, {{0, 0, 1}, 2}};
  EXPECT_THAT(
      log_probabilities(logits, requests),
      ElementsAre(DoubleNear(std::log(1. / 2), 1e-6), DoubleNear(std::log(3. / 4 * 3 / 4), 1e-6)));
}

TEST(Scoring, ExtremesStayFinite) {
  const at::Tensor logits = logits_of({1e30f, 0, -1e30f}, 3);
  EXPECT_THAT(log_probabilities(logits, std::vector<Request>{{{0, 0}, 1}}), ElementsAre(0.0));
  const auto low = log_probabilities(logits, std::vector<Request>{{{0, 1}, 1}});
  EXPECT_TRUE(std::isfinite(low.at(0)));
}

TEST(Scoring, ManyRowsGoInParts) {
  constexpr int64_t rows = 1301;
  Request request{.ids = std::vector<int64_t>(rows + 1, 3), .scored = rows};
  const auto scores = log_probabilities(at::zeros({rows, 8}), std::span(&request, 1));
  EXPECT_NEAR(scores.at(0), -static_cast<double>(rows) * std::log(8.0), 1e-3);
}

TEST(Scoring, NothingIsNothing) {
  EXPECT_THAT(log_probabilities(at::zeros({0, 8}), {}), IsEmpty());
}

TEST(Scoring, LogitsMustFit) {
  const std::vector<Request> requests = {{{0, 7}, 1}};
  EXPECT_THROW(log_probabilities(at::zeros({2, 8}), requests), Error);
  EXPECT_THROW(log_probabilities(at::zeros({1, 7}), requests), Error);
}

}  // namespace
}  // namespace farskip
