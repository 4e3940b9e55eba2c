#include "farskip/eval/evaluator.h"

#include <ATen/ops/log_softmax.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "../runtime/fixture.h"
#include "farskip/base/error.h"

namespace farskip {
namespace {

using ::testing::DoubleNear;
using testing::Fixture;
using ::testing::Pointwise;

// The golden sequences, of 48 ids, cut and scored in several ways.
std::vector<Request> golden_requests(const Fixture& fixture) {
  const TokenBatch tokens = fixture.golden_tokens();
  std::vector<Request> requests;
  for (const auto& [row, length, scored] : std::vector<std::tuple<int, int, int>>{
           {0, 48, 47}, {1, 48, 3}, {0, 2, 1}, {1, 30, 29}, {0, 17, 5}}) {
    const auto begin = tokens.ids.begin() + row * 48;
    requests.push_back({{begin, begin + length}, scored});
  }
  return requests;
}

// Their scores by the reference's logits.
std::vector<double> golden_scores(const Fixture& fixture, const std::string& preset) {
  const at::Tensor logits = fixture.golden.view("logits." + preset);
  const at::Tensor all = at::log_softmax(logits.to(at::kDouble), 2);
  const std::vector<Request> requests = golden_requests(fixture);
  const std::vector<int> rows = {0, 1, 0, 1, 0};
  std::vector<double> scores;
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto& [ids, scored] = requests[i];
    double sum = 0;
    for (auto place = static_cast<int64_t>(ids.size()) - scored;
         place < static_cast<int64_t>(ids.size()); ++place) {
      sum += all[rows[i]][place - 1][ids[static_cast<size_t>(place)]].item<double>();
    }
    scores.push_back(sum);
  }
  return scores;
}

class Evaluators : public ::testing::Test {
 protected:
  std::vector<double> score(int ranks, const std::string& preset, int64_t batch_tokens,
                            const std::vector<Request>& requests, const StepForm& form = {}) {
    Session session = fixture_.session(ranks);
    const auto lengths = typical_lengths(batch_tokens, ranks);
    PlannedStep step =
        plan_step(fixture_.config(), Connectivity::preset(preset, fixture_.config().layers), ranks,
                  lengths, form);
    return Evaluator(session, std::move(step), {.batch_tokens = batch_tokens}).score(requests);
  }

  const Fixture fixture_{"qwen3_moe"};
};

TEST_F(Evaluators, ScoresAreTheReferencesWhateverRanksAndBatches) {
  for (const char* preset : {"standard", "farskip"}) {
    const auto expected = golden_scores(fixture_, preset);
    for (int ranks : {1, 2, 4}) {
      for (int64_t batch_tokens : {1, 64, 2048}) {
        const auto scores = score(ranks, preset, batch_tokens, golden_requests(fixture_));
        EXPECT_THAT(scores, Pointwise(DoubleNear(1e-3), expected))
            << preset << ", " << ranks << " ranks, " << batch_tokens;
      }
    }
  }
}

TEST_F(Evaluators, MicroBatchesAndChunksChangeNothing) {
  const auto expected = golden_scores(fixture_, "farskip");
  const auto requests = golden_requests(fixture_);
  EXPECT_THAT(score(2, "farskip", 2048, requests, {.two_batch = true}),
              Pointwise(DoubleNear(1e-3), expected));
  EXPECT_THAT(score(2, "farskip", 64, requests, {.expert_chunks = 2, .pieces = 2}),
              Pointwise(DoubleNear(1e-3), expected));
}

TEST_F(Evaluators, NoRequestsAreNoScores) { EXPECT_TRUE(score(2, "standard", 64, {}).empty()); }

TEST_F(Evaluators, IdsOutsideTheVocabularyAreRefused) {
  EXPECT_THROW(score(1, "standard", 64, {{{1, 512}, 1}}), ConfigError);
  EXPECT_THROW(score(1, "standard", 64, {{{-1, 1}, 1}}), ConfigError);
}

}  // namespace
}  // namespace farskip
