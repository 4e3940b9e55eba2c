#include "farskip/runtime/comparison.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <tuple>

#include "farskip/base/error.h"
#include "farskip/base/median.h"
#include "farskip/base/progress.h"
#include "farskip/runtime/contention.h"
#include "farskip/runtime/rank_figures.h"
#include "farskip/schedule/memory.h"
#include "farskip/simulate/simulate.h"

namespace farskip {
namespace {

constexpr double never = std::numeric_limits<double>::infinity();

using GraphKey = std::tuple<std::string, bool, int, int>;
GraphKey key_of(const Variant& v) {
  return {v.connectivity, v.two_batch, v.expert_chunks, v.pieces};
}

Sample sample_of(const std::vector<double>& seconds) {
  return {median(seconds), *std::ranges::min_element(seconds), *std::ranges::max_element(seconds)};
}

class Comparer {
 public:
  Comparer(Session& session, const TokenBatch& tokens, const ComparisonOptions& options)
      : session_(session), tokens_(tokens), options_(options), variants_(options.variants) {
    const Variant base{.connectivity = "standard", .schedule = "blocking"};
    const bool there = std::ranges::any_of(variants_, [&](const Variant& v) {
      return key_of(v) == key_of(base) && v.schedule == base.schedule;
    });
    if (!there) variants_.insert(variants_.begin(), base);
  }

  Comparison run() {
    Progress progress("measuring", 4);
    calibrate();
    progress.update(1, "op durations");
    comparison_.contention =
        measure_contention(session_.groups(), {.share = communication_share()});
    for (auto& [key, graph] : graphs_) graph.fit.contention = comparison_.contention;
    if (on_device() && options_.records && session_.ranks() > 1) measure_load();
    progress.update(2, "contention");
    plan();
    if (options_.choose) choose();
    measure();
    if (on_device()) measure_untimed();
    comparison_.bits = bits_.conclude(session_);
    progress.update(4, "steps");
    relate();
    return std::move(comparison_);
  }

 private:
  struct Calibrated {
    PlannedStep blocking;
    Durations durations;              // medians
    std::vector<Durations> by_round;  // of the measured rounds
    double gap_seconds = 0;           // between compute ops, the median
    LoadFit fit;                      // without load where that was not measured
    HostModel host;
  };

  PlannedStep planned(const Variant& variant, const std::string& schedule,
                      const DurationModel& durations) const {
    const Connectivity connectivity =
        Connectivity::load(variant.connectivity, session_.model().layers);
    return plan_step(session_.model(), connectivity, session_.ranks(), tokens_.lengths,
                     {.schedule = schedule,
                      .two_batch = variant.two_batch,
                      .expert_chunks = variant.expert_chunks,
                      .pieces = variant.pieces,
                      .dispatch = options_.dispatch,
                      .fp8_wire = options_.fp8_wire,
                      .routing = options_.routing,
                      .head = options_.training ? HeadRows::all : HeadRows::last_of_sequence,
                      .dtype = options_.dtype,
                      .goal = options_.training ? StepGoal::gradients : StepGoal::logits,
                      .gradients = options_.dtype},
                     durations);
  }

  std::vector<std::vector<ForwardResult>> rounds(const std::vector<const PlannedStep*>& steps,
                                                 int count, const RunOptions& options = {}) {
    RunOptions all = options;
    all.rounds = count;
    all.replay = options_.replay;
    all.pin_threads = true;
    all.records = options_.records;
    all.threads = options_.threads;
    return session_.run(steps, tokens_, all);
  }

  // Blocking runs of every graph, all in turn: their op durations are what schedules, bounds and
  // predictions go by.
  void calibrate() {
    std::vector<GraphKey> keys;
    for (const Variant& variant : variants_) {
      const GraphKey key = key_of(variant);
      if (graphs_.contains(key)) continue;
      graphs_[key].blocking = planned(variant, "blocking", nominal_durations);
      keys.push_back(key);
    }
    std::vector<const PlannedStep*> steps;
    for (const GraphKey& key : keys) steps.push_back(&graphs_[key].blocking);
    const int warm_up = warm_up_rounds(1);
    const auto results = rounds(steps, warm_up + std::max(3, options_.repeat));
    for (size_t i = 0; i < keys.size(); ++i) {
      std::vector<const ForwardResult*> counted;
      for (size_t r = warm_up; r < results.size(); ++r) counted.push_back(&results[r][i]);
      Calibrated& graph = graphs_[keys[i]];
      graph.durations = gather_durations(session_, graph.blocking.graph, counted);
      const auto figures = gather_figures(session_, counted);
      graph.gap_seconds = gap_of(figures);
      if (on_device()) graph.host = measured_host(graph, figures);
      check_bits(keys[i], "blocking", results.back()[i]);
    }
  }

  static double gap_of(const std::vector<std::vector<RankFigures>>& figures) {
    std::vector<double> seconds;
    for (const auto& round : figures) {
      for (const RankFigures& rank : round) seconds.push_back(rank.gap_seconds);
    }
    return median(seconds);
  }

  // A host that runs ahead of its device.
  static HostModel measured_host(const Calibrated& graph,
                                 const std::vector<std::vector<RankFigures>>& figures) {
    std::vector<double> seconds;
    for (const auto& round : figures) {
      seconds.push_back(std::ranges::max(round, {}, &RankFigures::host_seconds).host_seconds);
    }
    const auto ops = static_cast<double>(graph.blocking.schedule.steps.size());
    return {.computes = false, .launch_seconds = median(seconds) / ops};
  }

  // Of each graph, runs whose compute does not wait and blocking runs, as many in a row as of what
  // they foretell: the longer a device does not rest, the lower its clock.
  void measure_load() {
    constexpr int count = 3;
    const int times = times_in_a_row(), warm_up = warm_up_rounds(1, times);
    for (auto& [key, graph] : graphs_) {
      const PlannedStep* const step = &graph.blocking;
      const auto results =
          rounds({step}, warm_up + 2 * count, {.times = times, .never_waits_from = warm_up});
      const auto run = [&](int first) {
        std::vector<const ForwardResult*> counted;
        for (int i = 0; i < count; ++i) counted.push_back(&results[first + 2 * i][0]);
        return LoadRun{median_metrics(gather_figures(session_, counted)),
                       gather_durations(session_, step->graph, counted),
                       gather_overlapped(session_, step->graph, counted)};
      };
      const LoadRun steady = run(warm_up), rested = run(warm_up + 1);
      graph.fit = fit_load(step->graph, rested, steady, comparison_.contention);
    }
  }

  // A device keeps for some 0.1 s how much it rested: what counts comes behind steps of its own
  // kind, as it would in a loop, not behind those that others left it with.
  int times_in_a_row() const {
    if (!on_device()) return 1;
    const Calibrated& graph = graphs_.begin()->second;
    const double step = lane_seconds(graph, graph.durations, Lane::compute) +
                        lane_seconds(graph, graph.durations, Lane::communication);
    return std::clamp(1 + static_cast<int>(std::ceil(0.1 / std::max(step, 1e-3))), 2, 4);
  }

  // What communication takes of the time of compute, the mean over graphs.
  double communication_share() const {
    double sum = 0;
    for (const auto& [key, graph] : graphs_) {
      const double compute = lane_seconds(graph, graph.durations, Lane::compute);
      sum += lane_seconds(graph, graph.durations, Lane::communication) / std::max(compute, 1e-9);
    }
    return std::clamp(sum / static_cast<double>(graphs_.size()), 0.05, 1.0);
  }

  static double lane_seconds(const Calibrated& graph, const Durations& durations, Lane lane) {
    double seconds = 0;
    for (const Op& op : graph.blocking.graph.ops()) {
      if (op.lane == lane) seconds += durations[op.id];
    }
    return seconds;
  }

  bool on_device() const { return !session_.groups()[0]->device().is_cpu(); }

  // A device's second run of a step records what later ones launch.
  int warm_up_rounds(int least, int times = 1) const {
    return std::max(!on_device() ? least : times > 1 ? 1 : 2, options_.warm_up);
  }

  // Every schedule of one graph must give the same bits. On a CPU rewrites that keep bits must give
  // those of the connectivity's plain graph, too; a GPU's libraries choose kernels by size, so that
  // there chunks and pieces may change some.
  void check_bits(const GraphKey& key, const std::string& schedule, const ForwardResult& result) {
    const auto& [connectivity, two_batch, chunks, pieces] = key;
    const std::string rewrites =
        ", chunks " + std::to_string(chunks) + ", pieces " + std::to_string(pieces);
    const std::string family = connectivity + (two_batch ? ", two-batch" : "");
    bits_.add(family + (on_device() ? rewrites : ""), connectivity + ", " + schedule + rewrites,
              result);
  }

  void plan() {
    for (const Variant& variant : variants_) {
      const Calibrated& graph = graphs_.at(key_of(variant));
      const DurationModel durations = [&](const Graph&) { return graph.durations; };
      Schedule schedule = make_schedule(variant.schedule, graph.blocking.graph, graph.durations,
                                        graph.fit.contention, graph.host);
      verify(graph.blocking.graph, schedule);
      steps_.push_back({graph.blocking.graph, std::move(schedule)});
    }
  }

  // Leaves the standard variants and the one of the others that is foreseen to be the fastest.
  void choose() {
    std::vector<Foreseen>& weighed = comparison_.weighed;
    for (size_t i = 0; i < variants_.size(); ++i) {
      if (variants_[i].is_standard()) continue;
      weighed.push_back({variants_[i], foreseen(steps_[i], graphs_.at(key_of(variants_[i]))).step});
    }
    std::ranges::stable_sort(weighed, {}, &Foreseen::seconds);
    const auto goes = [&](const Variant& variant) {
      return !variant.is_standard() && variant != weighed.front().variant;
    };
    std::vector<PlannedStep> staying;
    for (size_t i = 0; i < variants_.size(); ++i) {
      if (!goes(variants_[i])) staying.push_back(std::move(steps_[i]));
    }
    steps_ = std::move(staying);
    std::erase_if(variants_, goes);
    std::erase_if(graphs_, [&](const auto& graph) {
      return std::ranges::none_of(variants_,
                                  [&](const Variant& v) { return key_of(v) == graph.first; });
    });
  }

  // Where among the steps of a round each graph runs blocking; appends those that no variant is.
  std::map<GraphKey, size_t> add_blocking_steps(std::vector<const PlannedStep*>& steps) const {
    std::map<GraphKey, size_t> places;
    for (size_t i = 0; i < variants_.size(); ++i) {
      if (variants_[i].schedule == "blocking") places.try_emplace(key_of(variants_[i]), i);
    }
    for (const auto& [key, graph] : graphs_) {
      if (places.try_emplace(key, steps.size()).second) steps.push_back(&graph.blocking);
    }
    return places;
  }

  void measure() {
    std::vector<const PlannedStep*> steps;
    for (const PlannedStep& step : steps_) steps.push_back(&step);
    const std::map<GraphKey, size_t> blocking = add_blocking_steps(steps);
    const int times = times_in_a_row(), warm_up = warm_up_rounds(0, times);
    const auto results = rounds(steps, warm_up + std::max(1, options_.repeat), {.times = times});
    const auto counted = [&](size_t step) {
      std::vector<const ForwardResult*> rounds;
      for (size_t r = warm_up; r < results.size(); ++r) rounds.push_back(&results[r][step]);
      return rounds;
    };
    for (const auto& [key, place] : blocking) {
      Calibrated& graph = graphs_.at(key);
      graph.durations = gather_durations(session_, graph.blocking.graph, counted(place));
      for (const ForwardResult* round : counted(place)) {
        graph.by_round.push_back(
            gather_durations(session_, graph.blocking.graph, std::span(&round, 1)));
      }
    }
    for (size_t i = 0; i < steps_.size(); ++i) {
      for (const auto& round : results) {
        check_bits(key_of(variants_[i]), variants_[i].schedule, round[i]);
      }
      comparison_.rows.push_back(row(i, counted(i)));
    }
  }

  void measure_untimed() {
    std::vector<const PlannedStep*> steps;
    for (const PlannedStep& step : steps_) steps.push_back(&step);
    const int times = times_in_a_row(), warm_up = warm_up_rounds(0, times);
    const auto results =
        rounds(steps, warm_up + std::max(1, options_.repeat), {.timeline = false, .times = times});
    for (size_t i = 0; i < steps.size(); ++i) {
      std::vector<const ForwardResult*> counted;
      for (size_t r = 0; r < results.size(); ++r) {
        check_bits(key_of(variants_[i]), variants_[i].schedule, results[r][i]);
        if (r >= static_cast<size_t>(warm_up)) counted.push_back(&results[r][i]);
      }
      std::vector<double> seconds, host, layers_host;
      for (const auto& round : gather_figures(session_, counted)) {
        seconds.push_back(step_seconds(round));
        const RankFigures slowest = std::ranges::max(round, {}, &RankFigures::host_seconds);
        host.push_back(slowest.host_seconds);
        layers_host.push_back(slowest.layers_host_seconds);
      }
      comparison_.rows[i].untimed_step = sample_of(seconds);
      comparison_.rows[i].host = sample_of(host);
      comparison_.rows[i].layers_host = sample_of(layers_host);
    }
  }

  Durations under_load(const PlannedStep& step, const Calibrated& graph,
                       const Durations& durations) const {
    return durations_under_load(step.graph, step.schedule, durations, graph.fit.load,
                                graph.fit.contention, graph.host);
  }

  // With the time between ops, which is no op's.
  OpTimes play(const PlannedStep& step, const Calibrated& graph, Durations durations) const {
    for (const Op& op : step.graph.ops()) {
      if (op.lane == Lane::compute && durations[op.id] > 0) durations[op.id] += graph.gap_seconds;
    }
    return evaluate(step.graph, step.schedule, durations, graph.fit.contention, graph.host);
  }

  // At the median durations of its blocking runs.
  OpTimes foreseen(const PlannedStep& step, const Calibrated& graph) const {
    return play(step, graph, under_load(step, graph, graph.durations));
  }

  // Each round's step against its own blocking run.
  void set_ratios(ComparisonRow& row, const PlannedStep& step, const Calibrated& graph,
                  const std::vector<double>& seconds,
                  std::span<const std::vector<RankFigures>> figures) const {
    std::vector<double> over_bound, over_loaded_bound, error, slowdown;
    for (size_t r = 0; r < seconds.size(); ++r) {
      const Durations& durations = graph.by_round[r];
      slowdown.push_back(mean_metrics(figures[r]).compute /
                         lane_seconds(graph, durations, Lane::compute));
      over_bound.push_back(seconds[r] / lower_bound(step.graph, durations).seconds());
      const Durations loaded = under_load(step, graph, durations);
      over_loaded_bound.push_back(seconds[r] / lower_bound(step.graph, loaded).seconds());
      error.push_back(play(step, graph, loaded).step / seconds[r] - 1);
    }
    row.over_bound = median(over_bound);
    row.over_loaded_bound = median(over_loaded_bound);
    row.prediction_error = median(error);
    row.compute_slowdown = median(slowdown);
  }

  ComparisonRow row(size_t i, const std::vector<const ForwardResult*>& counted) {
    const Variant& variant = variants_[i];
    const Calibrated& graph = graphs_.at(key_of(variant));
    const auto figures = gather_figures(session_, counted);
    std::vector<double> seconds;
    for (const auto& round : figures) seconds.push_back(step_seconds(round));
    ComparisonRow row{.variant = variant, .timelines = {}, .simulated = {}};
    row.step = sample_of(seconds);
    const size_t typical = std::ranges::find(seconds, row.step.median) - seconds.begin();
    row.metrics = median_metrics(figures);
    row.bound = lower_bound(graph.blocking.graph, graph.durations);
    const OpTimes times = foreseen(steps_[i], graph);
    row.simulated = timeline_of(steps_[i].graph, steps_[i].schedule, times);
    row.predicted = times.step;
    row.predicted_peak_bytes = peak_activation_bytes(steps_[i].graph, steps_[i].schedule,
                                                     {.on_device = on_device() ? &times : nullptr,
                                                      .launch_seconds = graph.host.launch_seconds,
                                                      .recorded = on_device() && options_.records});
    row.load = graph.fit.load;
    for (const Op& op : steps_[i].graph.ops()) {
      if (op.lane != Lane::compute || graph.fit.load.by_op.empty()) continue;
      row.contention_by_kind[op.kind] = graph.fit.contention.by_op[op.id];
      row.load_by_kind[op.kind] = graph.fit.load.by_op[op.id];
    }
    set_ratios(row, steps_[i], graph, seconds, figures);
    const double tokens = static_cast<double>(tokens_.ids.size());
    row.tokens_per_second = tokens / row.step.median;
    for (const RankFigures& rank : figures[typical]) {
      row.bytes_sent += static_cast<int64_t>(rank.bytes_sent);
      row.peak_activation_bytes =
          std::max(row.peak_activation_bytes, static_cast<int64_t>(rank.peak_activation_bytes));
    }
    for (const StepResult& rank : counted[typical]->ranks) {
      row.timelines.push_back(rank.timeline);
      row.timelines.back().title = variant.label();
    }
    return row;
  }

  void relate() {
    double base = 0, best = never, best_untimed = never;
    for (const ComparisonRow& row : comparison_.rows) {
      if (!row.variant.is_standard()) continue;
      best = std::min(best, row.step.median);
      best_untimed = std::min(best_untimed, row.untimed_step.median);
      const bool plain = key_of(row.variant) == key_of({.connectivity = "standard"});
      if (plain && row.variant.schedule == "blocking") base = row.step.median;
    }
    for (ComparisonRow& row : comparison_.rows) {
      row.speedup = base / row.step.median;
      row.speedup_over_standard = best / row.step.median;
      if (row.untimed_step.median > 0) {
        row.untimed_speedup_over_standard = best_untimed / row.untimed_step.median;
      }
    }
  }

  Session& session_;
  const TokenBatch& tokens_;
  const ComparisonOptions& options_;
  std::vector<Variant> variants_;
  std::map<GraphKey, Calibrated> graphs_;
  BitsCheck bits_;
  std::vector<PlannedStep> steps_;
  Comparison comparison_;
};

}  // namespace

Comparison compare(Session& session, const TokenBatch& tokens, const ComparisonOptions& options) {
  return Comparer(session, tokens, options).run();
}

}  // namespace farskip
