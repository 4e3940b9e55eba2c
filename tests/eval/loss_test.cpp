#include "farskip/eval/loss.h"

#include <gtest/gtest.h>

#include <cmath>

#include "../base/temporary_folder.h"
#include "../runtime/fixture.h"
#include "farskip/base/error.h"

namespace farskip {
namespace {

using testing::Fixture;

class Losses : public ::testing::Test {
 protected:
  Losses()
      : session_(fixture_.session(2)),
        evaluator_(session_, fixture_.plan("standard", 2, fixture_.golden_tokens())) {}

  // The golden sequences as one text of 192 bytes.
  TokenFile file(size_t ids = 96) const {
    const TokenBatch tokens = fixture_.golden_tokens();
    const auto path = folder_.path() / "t.tokens";
    write_token_file(path, {.vocabulary = 512}, [&](TokenSink& sink) {
      sink.add_document(std::vector<int32_t>(tokens.ids.begin(),
                                             tokens.ids.begin() + static_cast<std::ptrdiff_t>(ids)),
                        2 * ids);
    });
    return TokenFile(path);
  }
  // The nats of ids [begin + 1, end) behind those from begin on.
  double nats(const TokenFile& tokens, uint64_t begin, uint64_t end) {
    Request request;
    request.ids.resize(end - begin);
    tokens.read(begin, request.ids);
    request.scored = request.inputs();
    return -evaluator_.score(std::span(&request, 1)).at(0);
  }

  const Fixture fixture_{"olmoe"};
  TemporaryFolder folder_;
  Session session_;
  Evaluator evaluator_;
};

TEST_F(Losses, EveryIdButTheFirstIsPredictedOnce) {
  const TokenFile tokens = file();
  const LossResult result = evaluate_loss(evaluator_, tokens, {.sequence_length = 40});
  EXPECT_EQ(result.windows, 3u);
  EXPECT_EQ(result.tokens, 95u);
  const double first = nats(tokens, 0, 41), second = nats(tokens, 40, 81),
               third = nats(tokens, 80, 96);
  EXPECT_NEAR(result.loss, (first + second + third) / 95, 1e-5);
  const Estimate means = estimate_mean(std::vector<double>{first / 40, second / 40, third / 15});
  EXPECT_NEAR(result.standard_error.value(), means.standard_error.value(), 1e-5);
  EXPECT_NEAR(result.perplexity(), std::exp(result.loss), 1e-9);
  EXPECT_NEAR(result.bits_per_byte.value(), result.loss / std::log(2.0) / 2, 1e-9);
}

TEST_F(Losses, WindowsMayBeFewerOrOne) {
  const TokenFile tokens = file();
  const LossResult two = evaluate_loss(evaluator_, tokens, {.sequence_length = 40, .windows = 2});
  EXPECT_EQ(two.tokens, 80u);
  const LossResult whole = evaluate_loss(evaluator_, tokens, {.sequence_length = 95});
  EXPECT_EQ(whole.windows, 1u);
  EXPECT_FALSE(whole.standard_error);
  EXPECT_EQ(evaluate_loss(evaluator_, tokens, {.sequence_length = 94}).windows, 2u);
  EXPECT_NEAR(evaluate_loss(evaluator_, tokens, {.sequence_length = 1000}).loss, whole.loss, 1e-6);
}

TEST_F(Losses, TooShortFilesAreRefused) {
  EXPECT_EQ(evaluate_loss(evaluator_, file(2), {}).tokens, 1u);
  EXPECT_THROW(evaluate_loss(evaluator_, file(1), {}), FileError);
  EXPECT_THROW(evaluate_loss(evaluator_, file(), {.sequence_length = 0}), ConfigError);
}

}  // namespace
}  // namespace farskip
