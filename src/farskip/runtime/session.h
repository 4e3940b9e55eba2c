#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "farskip/comm/group.h"
#include "farskip/io/tokens.h"
#include "farskip/io/weights.h"
#include "farskip/runtime/executor.h"
#include "farskip/runtime/routing_state.h"
#include "farskip/runtime/sizes.h"
#include "farskip/runtime/step_plan.h"

namespace farskip {

// Sequences of each rank: contiguous, as even as can be, the first ranks one more; where there are
// fewer sequences than ranks, the last ranks have none.
std::vector<Range> distribute(int64_t sequences, int ranks);

// The step inputs "input_ids" and "positions" of some sequences of a batch.
Batch batch_of(const TokenBatch& tokens, Range sequences);

struct RunOptions {
  int rounds = 1;
  std::optional<uint64_t> chaos_seed;  // delays compute threads at random
  bool record_routing = false;
  const RoutingRecord* replay = nullptr;  // for routing mode replay; of the whole batch
  bool pin_threads = false;
};

// One step of all ranks.
struct ForwardResult {
  std::vector<StepResult> ranks;
  RoutingRecord routing;  // of the whole batch in order, if it was recorded

  // fp32 [tokens of the whole batch, vocabulary], or [sequences, vocabulary] for a head on last
  // rows only.
  at::Tensor logits() const;
};

// A model spread over thread ranks: weights and groups, and steps run on them. One thread.
class Session {
 public:
  // weights[r] and groups[r] are those of rank r. Throws UsageError if there are not as many of
  // both as the placement has ranks.
  Session(ModelConfig model, Placement placement, std::vector<Weights> weights,
          std::vector<std::unique_ptr<Group>> groups);

  const ModelConfig& model() const { return model_; }
  const Placement& placement() const { return placement_; }
  int ranks() const { return placement_.ranks(); }
  const std::vector<std::unique_ptr<Group>>& groups() const { return groups_; }

  // Runs one step on a batch that is shared out by `distribute`.
  ForwardResult run(const PlannedStep& step, const TokenBatch& tokens, RunOptions options = {});
  // Runs every step once a round, in turn, so that what is compared sees the same machine; ranks
  // start each together. result[round][step]. Throws what Executor throws; of several ranks the
  // error that came first. A group that failed stays failed, and with it the session.
  std::vector<std::vector<ForwardResult>> run(std::span<const PlannedStep* const> steps,
                                              const TokenBatch& tokens, RunOptions options = {});

 private:
  ModelConfig model_;
  Placement placement_;
  std::vector<Weights> weights_;
  std::vector<std::unique_ptr<Group>> groups_;
};

// Logits of sequences as [batch, width, vocabulary], zeros behind each sequence's end; `flat` is
// [sum of lengths, vocabulary].
at::Tensor pad_sequences(const at::Tensor& flat, std::span<const int64_t> lengths, int64_t width);

}  // namespace farskip
