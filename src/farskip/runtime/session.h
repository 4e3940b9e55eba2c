#pragma once

#include <ATen/core/Tensor.h>

#include <limits>
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

// The step inputs of some sequences of a batch: "input_ids", "positions", "labels" (the token that
// follows, none behind a sequence's last one) and "label_count", of the whole batch.
Batch batch_of(const TokenBatch& tokens, Range sequences);

struct RunOptions {
  int rounds = 1;
  std::optional<uint64_t> chaos_seed;  // delays compute threads at random
  bool record_routing = false;  // of every launch: none is recorded then, whatever `records` says
  const RoutingRecord* replay = nullptr;  // for routing mode replay; of the whole batch
  bool pin_threads = false;
  bool records = true;   // as ExecutorOptions
  bool timeline = true;  // the same
  int times = 1;         // of each step in a row in a round; results are those of the last one
  // Batch::never_waits: from this round on, in every second one.
  int never_waits_from = std::numeric_limits<int>::max();
  // Compute threads of each rank on a CPU. With more than one, the bits of a row may depend on how
  // many rows stand beside it, so chunks and pieces need no longer keep bits; schedules do.
  int threads = 1;
};

// One step, as the ranks of this process saw it. Where all ranks live in one process, that is all
// of it.
struct ForwardResult {
  std::vector<StepResult> ranks;  // of Session::groups()
  RoutingRecord routing;          // of these ranks' sequences in order, if it was recorded

  // int64: for a step that goes back, of the ranks one after the other, a sum over the bits of the
  // gradient of every weight; undefined else.
  at::Tensor gradient_bits;
  at::Tensor gradient_norms;  // fp64, of the same gradients

  // Of these ranks' sequences: fp32 [tokens, vocabulary], or [sequences, vocabulary] for a head on
  // last rows only; of a step that ends in a loss the ranks' shares of it [micro-batches].
  at::Tensor logits() const;
};

// A model spread over ranks, of which this process holds some or all: their weights and groups, and
// steps run on them, each rank on a thread of its own. Where ranks live in several processes, every
// process makes the same calls with the same arguments. One thread.
class Session {
 public:
  // weights[i] are those of the rank of groups[i], ascending. Throws UsageError if there is not one
  // of each, or the groups are not of as many ranks as the placement.
  Session(ModelConfig model, Placement placement, std::vector<Weights> weights,
          std::vector<std::unique_ptr<Group>> groups);

  const ModelConfig& model() const { return model_; }
  const Placement& placement() const { return placement_; }
  int ranks() const { return placement_.ranks(); }
  const std::vector<std::unique_ptr<Group>>& groups() const { return groups_; }
  // Whether other processes hold some of the ranks.
  bool is_distributed() const { return groups_.size() < static_cast<size_t>(ranks()); }

  // Runs one step on a batch that is shared out by `distribute`: all of it is passed everywhere.
  ForwardResult run(const PlannedStep& step, const TokenBatch& tokens, RunOptions options = {});
  // Runs every step once a round, in turn, so that what is compared sees the same machine; ranks
  // start each together. result[round][step]. Throws what Executor throws; of several ranks the
  // error that came first; CommError if processes do not agree on what to run. A group that failed
  // stays failed, and with it the session.
  std::vector<std::vector<ForwardResult>> run(std::span<const PlannedStep* const> steps,
                                              const TokenBatch& tokens, RunOptions options = {});

  // The logits of the whole batch, in order, on the process that holds rank 0; undefined elsewhere.
  // Collective. Throws CommError.
  at::Tensor gather_logits(const ForwardResult& result);

  // What every rank has: numbers[i], of one length on all ranks, is of groups()[i], result[r] of
  // rank r. Collective. Throws CommError.
  std::vector<std::vector<double>> all_gather(const std::vector<std::vector<double>>& numbers);

 private:
  size_t index_of(const Group& group) const;
  void move_weights();

  ModelConfig model_;
  Placement placement_;
  std::vector<Weights> weights_;
  std::vector<std::unique_ptr<Group>> groups_;
};

// Logits of sequences as [batch, width, vocabulary], zeros behind each sequence's end; `flat` is
// [sum of lengths, vocabulary].
at::Tensor pad_sequences(const at::Tensor& flat, std::span<const int64_t> lengths, int64_t width);

}  // namespace farskip
