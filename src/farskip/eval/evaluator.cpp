#include "farskip/eval/evaluator.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "farskip/base/error.h"
#include "farskip/eval/scoring.h"

namespace farskip {
namespace {

void check_ids(std::span<const Request> requests, int64_t vocabulary) {
  for (const Request& request : requests) {
    for (const int64_t id : request.ids) {
      if (id >= 0 && id < vocabulary) continue;
      throw ConfigError("token is not in the model's vocabulary",
                        {.where = {},
                         .expected = "0 to " + std::to_string(vocabulary - 1),
                         .found = std::to_string(id),
                         .hint = "is the tokenizer the model's own?"});
    }
  }
}

// The longest first: what is short fills steps best, and memory runs out at once or never.
std::vector<size_t> longest_first(std::span<const Request> requests) {
  std::vector<size_t> order(requests.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return requests[a].inputs() > requests[b].inputs(); });
  return order;
}

TokenBatch batch_from(std::span<const Request> requests) {
  TokenBatch batch;
  for (const Request& request : requests) {
    batch.ids.insert(batch.ids.end(), request.ids.begin(), request.ids.end() - 1);
    batch.lengths.push_back(request.inputs());
    batch.width = std::max(batch.width, request.inputs());
  }
  return batch;
}

}  // namespace

std::vector<int64_t> typical_lengths(int64_t batch_tokens, int ranks) {
  constexpr int64_t length = 64;
  const auto sequences = std::max<int64_t>(ranks, batch_tokens / length);
  return std::vector<int64_t>(static_cast<size_t>(sequences), length);
}

Evaluator::Evaluator(Session& session, PlannedStep step, EvaluatorOptions options)
    : session_(session), step_(std::move(step)), options_(std::move(options)) {}

std::vector<double> Evaluator::score(std::span<const Request> requests, Progress* progress) {
  check_ids(requests, session_.model().vocabulary);
  const std::vector<size_t> order = longest_first(requests);
  std::vector<double> result(requests.size());
  for (size_t done = 0; done < order.size();) {
    std::vector<Request> batch;
    for (int64_t tokens = 0; done + batch.size() < order.size();) {
      const Request& next = requests[order[done + batch.size()]];
      tokens += next.inputs();
      if (!batch.empty() && tokens > options_.batch_tokens) break;
      batch.push_back(next);
    }
    for (const double value : score_batch(batch)) result[order[done++]] = value;
    if (progress != nullptr) progress->update(static_cast<int64_t>(done));
  }
  return result;
}

std::vector<double> Evaluator::score_batch(std::span<const Request> batch) {
  const ForwardResult forward = session_.run(step_, batch_from(batch), options_.run);
  const auto shares = distribute(static_cast<int64_t>(batch.size()), session_.ranks());
  // Every rank scores its own requests, so that no logits travel.
  std::vector<std::vector<double>> mine(session_.groups().size(),
                                        std::vector<double>(batch.size(), 0.0));
  for (size_t i = 0; i < mine.size(); ++i) {
    const Range share = shares[static_cast<size_t>(session_.groups()[i]->rank())];
    if (share.size() == 0) continue;
    const auto first = static_cast<size_t>(share.first);
    const auto values = log_probabilities(at::cat(forward.ranks[i].outputs),
                                          batch.subspan(first, static_cast<size_t>(share.size())));
    std::copy(values.begin(), values.end(), mine[i].begin() + share.first);
  }
  std::vector<double> sums(batch.size(), 0.0);
  for (const std::vector<double>& rank : session_.all_gather(mine)) {
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += rank[i];
  }
  return sums;
}

}  // namespace farskip
