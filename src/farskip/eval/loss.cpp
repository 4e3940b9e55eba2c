#include "farskip/eval/loss.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "farskip/base/error.h"

namespace farskip {
namespace {

// Read and scored at a time, so that a long file is never in memory whole.
constexpr uint64_t windows_at_once = 256;

Request read_window(const TokenFile& file, uint64_t window, uint64_t length) {
  const uint64_t begin = window * length;
  Request request;
  request.ids.resize(std::min(length + 1, file.size() - begin));
  file.read(begin, request.ids);
  request.scored = request.inputs();
  return request;
}

void check(const TokenFile& file, const LossOptions& options) {
  if (options.sequence_length < 1) {
    throw ConfigError(
        "wrong sequence length",
        {.where = {}, .expected = "at least 1", .found = std::to_string(options.sequence_length)});
  }
  if (file.size() < 2) {
    throw FileError("token file is too short", {.where = file.path().string(),
                                                .expected = "two ids at least",
                                                .found = std::to_string(file.size())});
  }
}

}  // namespace

double LossResult::perplexity() const { return std::exp(loss); }

LossResult evaluate_loss(Evaluator& evaluator, const TokenFile& file, const LossOptions& options,
                         Progress* progress) {
  check(file, options);
  const auto length = static_cast<uint64_t>(options.sequence_length);
  const uint64_t all = (file.size() - 2) / length + 1;
  const uint64_t windows = std::min(all, options.windows.value_or(all));
  LossResult result{.windows = windows};
  std::vector<double> means;
  double sum = 0;
  for (uint64_t first = 0; first < windows; first += windows_at_once) {
    std::vector<Request> requests;
    for (uint64_t i = first; i < std::min(windows, first + windows_at_once); ++i) {
      requests.push_back(read_window(file, i, length));
    }
    const std::vector<double> scores = evaluator.score(requests);
    for (size_t i = 0; i < scores.size(); ++i) {
      sum -= scores[i];
      result.tokens += static_cast<uint64_t>(requests[i].scored);
      means.push_back(-scores[i] / static_cast<double>(requests[i].scored));
    }
    if (progress != nullptr) progress->update(static_cast<int64_t>(means.size()));
  }
  result.loss = sum / static_cast<double>(result.tokens);
  result.standard_error = estimate_mean(means).standard_error;
  if (file.counts().text_bytes > 0) {
    const double tokens_per_byte =
        static_cast<double>(file.size()) / static_cast<double>(file.counts().text_bytes);
    result.bits_per_byte = result.loss / std::log(2.0) * tokens_per_byte;
  }
  return result;
}

}  // namespace farskip
