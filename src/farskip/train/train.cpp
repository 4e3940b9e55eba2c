#include "farskip/train/train.h"

#include <ATen/TensorOperators.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "farskip/base/error.h"
#include "farskip/comm/ranks.h"
#include "farskip/graph/cost.h"
#include "farskip/model/fingerprint.h"
#include "farskip/trace/metrics.h"
#include "farskip/train/expert_loads.h"
#include "farskip/train/rank_trainer.h"

namespace farskip {
namespace {

constexpr int64_t reschedule_after = 3;  // steps: the first ones also warm memory up

// The training of one rank. Ranks take every decision from what all of them know.
class RankRun {
 public:
  RankRun(const TrainConfig& config, const TrainInputs& inputs, const Placement& placement,
          const std::vector<TrainingPlan>& plans, const TrainingRanks& ranks,
          TrainObserver& observer, const std::atomic<bool>& stop)
      : config_(config),
        inputs_(inputs),
        plans_(plans),
        plan_(plans.at(static_cast<size_t>(ranks.stage()))),
        ranks_(ranks),
        observer_(observer),
        stop_(stop),
        trainer_(inputs.model, placement, config, plan_, ranks),
        data_(inputs.data, config.sequence_length, inputs.model.vocabulary, config.seed) {
    if (inputs.validation != nullptr) {
      validation_.emplace(*inputs.validation, config.sequence_length, inputs.model.vocabulary,
                          config.seed);
    }
  }

  TrainResult run(const Weights& weights) {
    const int64_t first = start(weights);
    TrainResult result{.steps = first};
    if (reports()) {
      observer_.started(trainer_.parameters().trained_elements(), first,
                        plan_.update.graph.description());
    }
    lap_ = Clock::now();
    for (int64_t step = first; step < config_.steps && !result.stopped; ++step) {
      const TrainingStep done = trainer_.step(data_, step);
      if (!std::isfinite(done.loss) || !std::isfinite(done.gradient_norm)) explain(step);
      result.steps = step + 1;
      result.loss = done.loss;
      if (step - first + 1 == reschedule_after) trainer_.reschedule();
      report(step + 1, step + 1 - first, done);
      result.stopped = trainer_.any(stop_.load());
      const bool last = result.stopped || step + 1 == config_.steps;
      if (last || is_due(config_.validate_every, step + 1)) validate(step + 1, result);
      if (last || is_due(config_.checkpoint_every, step + 1)) save(step + 1);
    }
    return result;
  }

 private:
  bool reports() const { return ranks_.rank() == 0; }
  static bool is_due(int64_t every, int64_t step) { return every > 0 && step % every == 0; }

  // The first step to do.
  int64_t start(const Weights& weights) {
    const LatestCheckpoint latest = find_latest_checkpoint(config_.out);
    if (!inputs_.resume) {
      if (latest.folder) {
        throw UsageError("the run's folder holds a run already",
                         {.where = config_.out,
                          .found = latest.folder->filename().string(),
                          .hint = "go on with --resume, or name another folder"});
      }
      trainer_.parameters().set_weights(weights);
      return 0;
    }
    if (!latest.folder) {
      const auto& skipped = latest.skipped;
      throw UsageError(
          "there is no whole checkpoint to go on from",
          {.where = config_.out, .found = skipped.empty() ? "none" : skipped.front().why});
    }
    const TrainingPoint point = trainer_.load(*latest.folder, fingerprint(inputs_.model));
    check_same_run(point);
    return point.step;
  }

  // What the losses of a resumed run depend on.
  void check_same_run(const TrainingPoint& point) const {
    if (Connectivity::from_json(point.connectivity, inputs_.model.layers) != inputs_.connectivity) {
      throw ConfigError("the run was started with another connectivity",
                        {.where = config_.out, .found = inputs_.connectivity.name()});
    }
    TrainConfig before;
    read_settings(before, point.settings, config_.out);
    auto require_same = [&](const char* setting, auto expected, auto found) {
      if (expected == found) return;
      throw ConfigError(
          "the run was started with another setting",
          {.where = setting, .expected = std::to_string(expected), .found = std::to_string(found)});
    };
    require_same("seed", before.seed, config_.seed);
    require_same("sequences", before.sequences, config_.sequences);
    require_same("sequence_length", before.sequence_length, config_.sequence_length);
  }

  void report(int64_t step, int64_t done_here, const TrainingStep& done) {
    ++steps_since_;
    loads_ = loads_.defined() ? loads_ + done.expert_loads : done.expert_loads;
    const bool first = done_here == 1, last = step == config_.steps;
    if (!first && !last && step % config_.log_every != 0) return;
    const std::chrono::duration<double> elapsed = Clock::now() - lap_;
    lap_ = Clock::now();
    const double per_second = static_cast<double>(steps_since_) / elapsed.count();
    steps_since_ = 0;
    const at::Tensor loads = std::exchange(loads_, at::Tensor());
    if (!reports()) return;
    const OverlapMetrics metrics = measure_overlap(done.rank.timeline);
    const int64_t tokens = config_.sequences * config_.sequence_length;
    observer_.reported(
        {.step = step,
         .tokens = step * tokens,
         .loss = done.loss,
         .learning_rate = done.learning_rate,
         .gradient_norm = done.gradient_norm,
         .router_losses = done.router_losses,
         .max_loads = max_over_mean_loads(loads),
         .tokens_per_second = per_second * static_cast<double>(tokens),
         .flops_per_second = per_second * step_flops(),
         .percent_overlapped = metrics.percent_overlapped,
         .exposed_seconds = metrics.exposed,
         .step_seconds = metrics.step,
         .peak_activation_bytes = static_cast<double>(done.rank.peak_activation_bytes)});
  }

  // What the step takes, not what is computed again to save memory.
  double step_flops() const {
    double flops = 0;
    for (const TrainingPlan& plan : plans_) {
      const Graph& step = plan.update.graph;
      flops += (total_cost(step).flops - cost_of_recomputing(step).flops) *
               static_cast<double>(config_.micro_batches / plan.micro_batches);
    }
    return flops * ranks_.within().size();
  }

  void validate(int64_t step, TrainResult& result) {
    if (!validation_) return;
    beside_training([&] {
      result.validation_loss = trainer_.validate(*validation_, config_.validation_sequences);
      if (reports()) observer_.validated(step, *result.validation_loss);
    });
  }

  void save(int64_t step) {
    beside_training([&] { save_now(step); });
  }

  // The lap does not count what it takes.
  template <typename Run>
  void beside_training(Run run) {
    const Clock::time_point begin = Clock::now();
    run();
    lap_ += Clock::now() - begin;
  }

  void save_now(int64_t step) {
    const auto folder =
        trainer_.save(config_.out, {.step = step,
                                    .tokens = step * config_.sequences * config_.sequence_length,
                                    .model_config = inputs_.model_config,
                                    .model_fingerprint = fingerprint(inputs_.model),
                                    .connectivity = inputs_.connectivity.to_json(),
                                    .data_seed = config_.seed,
                                    .data_position = step * config_.sequences,
                                    .settings = to_json(config_)});
    if (reports()) observer_.saved(folder);
  }

  // Nothing was updated, so the step can be done again to see where it goes wrong.
  [[noreturn]] void explain(int64_t step) {
    const std::string where = "step " + std::to_string(step + 1);
    try {
      trainer_.step_checked(data_, step);
    } catch (const NumericError& error) {
      Problem problem = error.problem();
      problem.where = where + ", " + problem.where;
      problem.hint = "the last checkpoint in " + config_.out + " is kept";
      throw NumericError("a value is not finite", problem);
    }
    throw NumericError(
        "the loss or a gradient is not finite",
        {.where = where, .hint = "no single op makes it: values overflow when summed"});
  }

  const TrainConfig& config_;
  const TrainInputs& inputs_;
  const std::vector<TrainingPlan>& plans_;  // by stage
  const TrainingPlan& plan_;
  const TrainingRanks ranks_;
  TrainObserver& observer_;
  const std::atomic<bool>& stop_;
  RankTrainer trainer_;
  const TrainingData data_;
  std::optional<TrainingData> validation_;
  Clock::time_point lap_;
  int64_t steps_since_ = 0;
  at::Tensor loads_;  // of the experts, over as many steps
};

void check_biases(const TrainConfig& config, const ModelConfig& model) {
  if (config.bias_update_speed == 0 || model.router.correction_bias) return;
  throw ConfigError("the model's routers have no correction bias",
                    {.where = "bias_update_speed",
                     .expected = "0",
                     .hint = "a balance_loss works for every model"});
}

TrainingRanks ranks_of(const StageRank& rank) {
  return TrainingRanks(*rank.within, rank.between.get());
}

void check_stages(const TrainConfig& config, const TrainingRanks& ranks) {
  if (ranks.stages() == config.pipeline_stages) return;
  throw UsageError("the ranks are of another number of pipeline stages",
                   {.where = "pipeline_stages",
                    .expected = std::to_string(ranks.stages()),
                    .found = std::to_string(config.pipeline_stages)});
}

}  // namespace

TrainResult train(const TrainConfig& config, const TrainInputs& inputs, TrainObserver& observer,
                  const std::atomic<bool>& stop) {
  check(config);
  check_biases(config, inputs.model);
  std::vector<std::vector<Group*>> groups;
  for (const StageRank& rank : inputs.ranks) {
    groups.push_back({rank.within.get()});
    if (rank.between) groups.back().push_back(rank.between.get());
  }
  const int ranks = ranks_of(inputs.ranks.at(0)).size();
  check_stages(config, ranks_of(inputs.ranks.at(0)));
  const Placement placement = training_placement(config, inputs.model, ranks);
  const std::vector<TrainingPlan> plans =
      plan_training(inputs.model, inputs.connectivity, ranks, config);
  std::vector<TrainResult> results(inputs.ranks.size());
  run_ranks(groups, [&](size_t i) {
    RankRun run(config, inputs, placement, plans, ranks_of(inputs.ranks[i]), observer, stop);
    results[i] = run.run(inputs.weights[i]);
  });
  return results.front();
}

}  // namespace farskip
