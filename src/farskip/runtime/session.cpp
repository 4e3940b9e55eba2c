#include "farskip/runtime/session.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <string>

#include "farskip/base/error.h"
#include "farskip/comm/host_gather.h"
#include "farskip/comm/ranks.h"
#include "farskip/nn/loss.h"
#include "farskip/nn/rope.h"
#include "farskip/runtime/dtypes.h"
#include "farskip/runtime/kernels.h"
#include "farskip/runtime/same_work.h"
#include "farskip/runtime/shared_lane.h"

namespace farskip {
namespace {

constexpr Tag start_tag = -1, gather_tag = -2;

int64_t tokens_before(const TokenBatch& tokens, int64_t sequence) {
  return std::accumulate(tokens.lengths.begin(), tokens.lengths.begin() + sequence, int64_t{0});
}

at::Tensor labels_of(const Batch& batch) {
  const at::Tensor& ids = batch.inputs.at("input_ids");
  at::Tensor labels = at::full_like(ids, no_label);
  int64_t first = 0;
  for (int64_t length : batch.lengths) {
    labels.narrow(0, first, length - 1).copy_(ids.narrow(0, first + 1, length - 1));
    first += length;
  }
  return labels;
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

// Every rank's rows, one below the other, on rank 0; undefined on the others.
at::Tensor gather_rows(Group& group, const at::Tensor& rows) {
  const size_t ranks = static_cast<size_t>(group.size());
  const at::Tensor count = at::full({1}, rows.size(0), at::kLong);
  const at::Tensor counts = gather_on_host(group, count, gather_tag);
  std::vector<int64_t> in_rows(ranks, 0), out_rows(ranks, 0);
  in_rows[0] = rows.size(0);
  if (group.rank() == 0) {
    const int64_t* const each = counts.const_data_ptr<int64_t>();
    out_rows.assign(each, each + ranks);
  }
  const int64_t total = std::accumulate(out_rows.begin(), out_rows.end(), int64_t{0});
  const at::Tensor all = at::empty({total, rows.size(1)}, rows.options());
  const Event ready = Event::record_current(group.device());
  group.all_to_all(all, rows, out_rows, in_rows, gather_tag, ready).synchronize();
  return group.rank() == 0 ? all : at::Tensor();
}

// What one rank does in Session::run.
class RankRun {
 public:
  RankRun(const ModelConfig& model, const Placement& placement, const Weights& weights,
          const KernelTable& kernels, Group& group, const RunOptions& options, int64_t first_token)
      : group_(group),
        weights_(weights),
        state_({.record = options.record_routing,
                .replay = options.replay,
                .first_token = first_token}),
        shared_(group.device()),
        make_executor_([&, options](const Graph& graph) {
          return std::make_unique<Executor>(
              model, placement, graph, kernels, weights, group_,
              ExecutorOptions{.state = &state_,
                              .gradients = &gradients_,
                              .chaos_seed = options.chaos_seed,
                              .records = options.records && !options.record_routing,
                              .shared = &shared_,
                              .timeline = options.timeline});
        }) {}

  void add(const PlannedStep& step) {
    add_gradients(step.graph);
    steps_.push_back({&step, make_executor_(step.graph)});
  }

  StepResult run(size_t index, const Batch& batch, RoutingRecord& record) {
    group_.barrier(start_tag).synchronize();
    StepResult result = steps_[index].executor->run(steps_[index].step->schedule, batch);
    record = state_.take_record();
    return result;
  }

  // Of the gradients that the step left; undefined if it makes none.
  at::Tensor gradient_bits() const {
    std::vector<at::Tensor> sums;
    for (const auto& [name, gradient] : gradients_) {
      const auto bits = gradient.element_size() == 2 ? at::kShort : at::kInt;
      sums.push_back(gradient.view(bits).sum(at::kLong).cpu());
    }
    return sums.empty() ? at::Tensor() : at::stack(sums);
  }
  at::Tensor gradient_norms() const {
    std::vector<at::Tensor> norms;
    for (const auto& [name, gradient] : gradients_) {
      norms.push_back(
          at::linalg_vector_norm(gradient, 2, std::nullopt, /*keepdim=*/false, at::kDouble));
    }
    return norms.empty() ? at::Tensor() : at::stack(norms).cpu();
  }

 private:
  // All steps leave theirs in the same place.
  void add_gradients(const Graph& graph) {
    for (const Value& value : graph.values()) {
      if (value.kind != ValueKind::gradient || gradients_.count(value.name) != 0) continue;
      const at::Tensor& weight = weights_.at(value.name);
      gradients_[value.name] =
          at::empty(weight.sizes(), weight.options().dtype(scalar_type_of(value.dtype)));
    }
  }

  struct Prepared {
    const PlannedStep* step;
    std::unique_ptr<Executor> executor;
  };
  Group& group_;
  const Weights& weights_;
  RoutingState state_;
  Weights gradients_;
  SharedLane shared_;
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
  batch.inputs["labels"] = labels_of(batch);
  batch.inputs["label_count"] =
      at::full({1}, static_cast<int64_t>(tokens.ids.size()) - tokens.batch(), at::kFloat);
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
  int before = -1;
  bool fits = !groups_.empty() && weights_.size() == groups_.size();
  for (const auto& group : groups_) {
    fits = fits && group && group->size() == placement_.ranks() && group->rank() > before;
    if (fits) before = group->rank();
  }
  if (fits) {
    move_weights();
    return;
  }
  throw UsageError(
      "weights, groups and placement are not of the same ranks",
      {.expected = "ascending ranks of " + std::to_string(placement_.ranks()),
       .found =
           std::to_string(weights_.size()) + " weights, " + std::to_string(groups_.size()) +
           " groups" +
           (groups_.empty() || !groups_[0] ? "" : " of " + std::to_string(groups_[0]->size()))});
}

size_t Session::index_of(const Group& group) const {
  return static_cast<size_t>(std::ranges::find(groups_, &group, &std::unique_ptr<Group>::get) -
                             groups_.begin());
}

// Ranks that share a device share there what they share here.
void Session::move_weights() {
  std::map<std::pair<const void*, std::string>, at::Tensor> moved;
  for (size_t i = 0; i < groups_.size(); ++i) {
    const at::Device device = groups_[i]->device();
    if (device.is_cpu()) continue;
    for (auto& [name, tensor] : weights_[i]) {
      at::Tensor& there = moved[{tensor.const_data_ptr(), device.str()}];
      if (!there.defined()) there = tensor.to(device);
      tensor = there;
    }
  }
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
  const KernelTable kernels = step_kernels();
  std::vector<std::vector<ForwardResult>> results(rounds, std::vector<ForwardResult>(steps.size()));
  std::vector<RoutingRecord> no_records(groups_.size());
  std::vector<std::vector<std::vector<RoutingRecord>>> records(
      rounds, std::vector<std::vector<RoutingRecord>>(steps.size(), no_records));
  for (auto& round : results) {
    for (ForwardResult& result : round) result.ranks.resize(groups_.size());
  }
  std::vector<std::vector<std::vector<at::Tensor>>> bits(
      rounds,
      std::vector<std::vector<at::Tensor>>(steps.size(), std::vector<at::Tensor>(groups_.size())));
  auto norms = bits;
  auto run_rank = [&](Group& group) {
    const int rank = group.rank();
    const size_t index = index_of(group);
    if (is_distributed()) require_same_work(group, model_, steps, tokens, rounds);
    Batch batch = batch_of(tokens, shares[rank]);
    RankRun run(model_, placement_, weights_[index], kernels, group, options,
                tokens_before(tokens, shares[rank].first));
    for (const PlannedStep* step : steps) run.add(*step);
    for (size_t round = 0; round < rounds; ++round) {
      const int behind = static_cast<int>(round) - options.never_waits_from;
      batch.never_waits = behind >= 0 && behind % 2 == 0;
      for (size_t i = 0; i < steps.size(); ++i) {
        for (int time = 0; time < options.times; ++time) {
          results[round][i].ranks[index] = run.run(i, batch, records[round][i][index]);
        }
        bits[round][i][index] = run.gradient_bits();
        norms[round][i][index] = run.gradient_norms();
      }
    }
  };
  run_ranks(groups_, run_rank, {.pin_threads = options.pin_threads, .threads = options.threads});
  for (size_t round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < steps.size(); ++i) {
      results[round][i].routing = merge(records[round][i]);
      if (!bits[round][i][0].defined()) continue;
      results[round][i].gradient_bits = at::cat(bits[round][i]);
      results[round][i].gradient_norms = at::cat(norms[round][i]);
    }
  }
  return results;
}

at::Tensor Session::gather_logits(const ForwardResult& result) {
  at::Tensor all;
  run_ranks(groups_, [&](Group& group) {
    const at::Tensor gathered = gather_rows(group, at::cat(result.ranks[index_of(group)].outputs));
    if (group.rank() == 0) all = gathered;
  });
  return all;
}

std::vector<std::vector<double>> Session::all_gather(
    const std::vector<std::vector<double>>& numbers) {
  std::vector<std::vector<double>> all(static_cast<size_t>(ranks()));
  run_ranks(groups_, [&](Group& group) {
    const size_t index = index_of(group);
    const at::Tensor mine = at::tensor(numbers.at(index), at::kDouble);
    const at::Tensor gathered = gather_on_host(group, mine, gather_tag);
    if (index != 0) return;
    const double* from = gathered.const_data_ptr<double>();
    for (auto& rank : all) {
      rank.assign(from, from + mine.size(0));
      from += mine.size(0);
    }
  });
  return all;
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
