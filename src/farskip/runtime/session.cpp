#include "farskip/runtime/session.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "farskip/base/error.h"
#include "farskip/comm/ranks.h"
#include "farskip/nn/rope.h"
#include "farskip/runtime/kernels.h"

namespace farskip {
namespace {

constexpr Tag start_tag = -1;

int64_t tokens_before(const TokenBatch& tokens, int64_t sequence) {
  return std::accumulate(tokens.lengths.begin(), tokens.lengths.begin() + sequence, int64_t{0});
}

// The ranks' records one after the other; ranks without tokens have none.
RoutingRecord merge(const std::vector<RoutingRecord>& records) {
  std::map<int, std::vector<at::Tensor>> experts, weights;
  for (const RoutingRecord& record : records) {
    for (const auto& [layer, routing] : record) {
      experts[layer].push_back(routing.experts);
      weights[layer].push_back(routing.weights);
    }
  }
  RoutingRecord whole;
  for (const auto& [layer, parts] : experts) {
    whole[layer] = {at::cat(parts), at::cat(weights[layer])};
  }
  return whole;
}

// What one rank does in Session::run.
class RankRun {
 public:
  RankRun(const ModelConfig& model, const Placement& placement, const Weights& weights,
          const KernelTable& kernels, Group& group, const RunOptions& options, int64_t first_token)
      : group_(group),
        state_({.record = options.record_routing,
                .replay = options.replay,
                .first_token = first_token}),
        make_executor_([&, options](const Graph& graph) {
          return std::make_unique<Executor>(
              model, placement, graph, kernels, weights, group_,
              ExecutorOptions{.state = &state_, .chaos_seed = options.chaos_seed});
        }) {}

  void add(const PlannedStep& step) { steps_.push_back({&step, make_executor_(step.graph)}); }

  StepResult run(size_t index, const Batch& batch, RoutingRecord& record) {
    group_.barrier(start_tag).synchronize();
    StepResult result = steps_[index].executor->run(steps_[index].step->schedule, batch);
    record = state_.take_record();
    return result;
  }

 private:
  struct Prepared {
    const PlannedStep* step;
    std::unique_ptr<Executor> executor;
  };
  Group& group_;
  RoutingState state_;
  std::function<std::unique_ptr<Executor>(const Graph&)> make_executor_;
  std::vector<Prepared> steps_;
};

}  // namespace

std::vector<Range> distribute(int64_t sequences, int ranks) {
  std::vector<Range> ranges;
  const int64_t base = sequences / ranks, longer = sequences % ranks;
  for (int64_t rank = 0, first = 0; rank < ranks; ++rank) {
    const int64_t last = first + base + (rank < longer ? 1 : 0);
    ranges.push_back({first, last});
    first = last;
  }
  return ranges;
}

Batch batch_of(const TokenBatch& tokens, Range sequences) {
  Batch batch;
  batch.lengths.assign(tokens.lengths.begin() + sequences.first,
                       tokens.lengths.begin() + sequences.last);
  const int64_t first = tokens_before(tokens, sequences.first);
  const int64_t count = tokens_before(tokens, sequences.last) - first;
  batch.inputs["input_ids"] = at::tensor(
      at::ArrayRef<int64_t>(tokens.ids.data() + first, static_cast<size_t>(count)), at::kLong);
  batch.inputs["positions"] = sequence_positions(batch.lengths);
  return batch;
}

at::Tensor ForwardResult::logits() const {
  std::vector<at::Tensor> parts;
  for (const StepResult& rank : ranks) {
    parts.insert(parts.end(), rank.outputs.begin(), rank.outputs.end());
  }
  return at::cat(parts);
}

Session::Session(ModelConfig model, Placement placement, std::vector<Weights> weights,
                 std::vector<std::unique_ptr<Group>> groups)
    : model_(std::move(model)),
      placement_(std::move(placement)),
      weights_(std::move(weights)),
      groups_(std::move(groups)) {
  const size_t ranks = static_cast<size_t>(placement_.ranks());
  if (weights_.size() == ranks && groups_.size() == ranks) return;
  throw UsageError("weights, groups and placement are not of the same ranks",
                   {.expected = std::to_string(ranks) + " of each",
                    .found = std::to_string(weights_.size()) + " weights, " +
                             std::to_string(groups_.size()) + " groups"});
}

ForwardResult Session::run(const PlannedStep& step, const TokenBatch& tokens, RunOptions options) {
  const PlannedStep* const only = &step;
  options.rounds = 1;
  return std::move(run(std::span(&only, 1), tokens, options).at(0).at(0));
}

std::vector<std::vector<ForwardResult>> Session::run(std::span<const PlannedStep* const> steps,
                                                     const TokenBatch& tokens, RunOptions options) {
  const size_t rounds = static_cast<size_t>(std::max(0, options.rounds));
  const std::vector<Range> shares = distribute(tokens.batch(), ranks());
  const KernelTable kernels = forward_kernels();
  std::vector<std::vector<ForwardResult>> results(rounds, std::vector<ForwardResult>(steps.size()));
  std::vector<RoutingRecord> no_records(ranks());
  std::vector<std::vector<std::vector<RoutingRecord>>> records(
      rounds, std::vector<std::vector<RoutingRecord>>(steps.size(), no_records));
  for (auto& round : results) {
    for (ForwardResult& result : round) result.ranks.resize(ranks());
  }
  auto run_rank = [&](Group& group) {
    const int rank = group.rank();
    const Batch batch = batch_of(tokens, shares[rank]);
    RankRun run(model_, placement_, weights_[rank], kernels, group, options,
                tokens_before(tokens, shares[rank].first));
    for (const PlannedStep* step : steps) run.add(*step);
    for (size_t round = 0; round < rounds; ++round) {
      for (size_t i = 0; i < steps.size(); ++i) {
        results[round][i].ranks[rank] = run.run(i, batch, records[round][i][rank]);
      }
    }
  };
  run_ranks(groups_, run_rank, {.pin_threads = options.pin_threads});
  for (size_t round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < steps.size(); ++i) {
      results[round][i].routing = merge(records[round][i]);
    }
  }
  return results;
}

at::Tensor pad_sequences(const at::Tensor& flat, std::span<const int64_t> lengths, int64_t width) {
  at::Tensor padded =
      at::zeros({static_cast<int64_t>(lengths.size()), width, flat.size(1)}, flat.options());
  int64_t first = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    padded.select(0, static_cast<int64_t>(i))
        .narrow(0, 0, lengths[i])
        .copy_(flat.narrow(0, first, lengths[i]));
    first += lengths[i];
  }
  return padded;
}

}  // namespace farskip
