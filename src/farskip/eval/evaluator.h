#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "farskip/base/progress.h"
#include "farskip/eval/request.h"
#include "farskip/runtime/session.h"

namespace farskip {

struct EvaluatorOptions {
  int64_t batch_tokens = 2048;  // of a step, over all ranks; a longer request is a step of its own
  RunOptions run;
};

// Lengths of sequences to plan a step of so many tokens with. They steer its schedule, no more: it
// runs any batch.
std::vector<int64_t> typical_lengths(int64_t batch_tokens, int ranks);

// Scores requests by forward steps of a session. One thread.
class Evaluator {
 public:
  // The session must outlive this. `step` is of its model and ranks, and its head reads all rows.
  Evaluator(Session& session, PlannedStep step, EvaluatorOptions options = {});

  // The log-probability of each request's scored ids, in nats, on every process. Requests of like
  // length share steps. Where ranks live in several processes, collective: all pass the same
  // requests. Throws ConfigError for an id outside the model's vocabulary, and what Session::run
  // throws.
  std::vector<double> score(std::span<const Request> requests, Progress* progress = nullptr);

 private:
  std::vector<double> score_batch(std::span<const Request> batch);

  Session& session_;
  PlannedStep step_;
  EvaluatorOptions options_;
};

}  // namespace farskip
