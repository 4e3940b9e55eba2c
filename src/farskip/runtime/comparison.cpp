#include "farskip/runtime/comparison.h"

#include <ATen/ops/equal.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

#include "farskip/base/error.h"
#include "farskip/base/progress.h"
#include "farskip/runtime/contention.h"
#include "farskip/simulate/simulate.h"

namespace farskip {
namespace {

using GraphKey = std::tuple<std::string, bool, int, int>;
GraphKey key_of(const Variant& v) {
  return {v.connectivity, v.two_batch, v.expert_chunks, v.pieces};
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.at(values.size() / 2);
}

double step_seconds(const ForwardResult& result) {
  double slowest = 0;
  for (const StepResult& rank : result.ranks) {
    slowest = std::max(slowest, rank.timeline.step_seconds);
  }
  return slowest;
}

OverlapMetrics mean_metrics(const ForwardResult& result) {
  OverlapMetrics mean;
  const double share = 1.0 / static_cast<double>(result.ranks.size());
  for (const StepResult& rank : result.ranks) {
    const OverlapMetrics m = measure_overlap(rank.timeline);
    mean.step = std::max(mean.step, m.step);
    mean.compute += share * m.compute;
    mean.communication += share * m.communication;
    mean.overlapped += share * m.overlapped;
    mean.exposed += share * m.exposed;
    mean.idle_compute += share * m.idle_compute;
    mean.skew += share * m.skew;
    mean.interior_communication += share * m.interior_communication;
    mean.interior_exposed += share * m.interior_exposed;
  }
  if (mean.communication > 0) mean.percent_overlapped = 100 * mean.overlapped / mean.communication;
  if (mean.interior_communication > 0) {
    mean.interior_percent = 100 * (1 - mean.interior_exposed / mean.interior_communication);
  }
  return mean;
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
    comparison_.contention = measure_contention(session_.groups());
    progress.update(2, "contention");
    plan();
    measure();
    progress.update(4, "steps");
    relate();
    return std::move(comparison_);
  }

 private:
  struct Calibrated {
    PlannedStep blocking;
    Durations durations;
    at::Tensor logits;
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
                      .routing = options_.routing,
                      .head = HeadRows::last_of_sequence,
                      .dtype = options_.dtype},
                     durations);
  }

  std::vector<std::vector<ForwardResult>> rounds(const std::vector<const PlannedStep*>& steps,
                                                 int count) {
    return session_.run(steps, tokens_,
                        {.rounds = count, .replay = options_.replay, .pin_threads = true});
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
    const int warm_up = std::max(1, options_.warm_up);
    const auto results = rounds(steps, warm_up + std::max(3, options_.repeat));
    for (size_t i = 0; i < keys.size(); ++i) {
      std::vector<const ForwardResult*> counted;
      for (size_t r = warm_up; r < results.size(); ++r) counted.push_back(&results[r][i]);
      Calibrated& graph = graphs_[keys[i]];
      graph.durations = measured_durations(graph.blocking.graph, counted);
      graph.logits = results.back()[i].logits();
      check_bits(keys[i], "blocking", graph.logits);
    }
  }

  // Rewrites that keep bits must give what the plain graph of the connectivity gives.
  void check_bits(const GraphKey& key, const std::string& schedule, const at::Tensor& logits) {
    const auto family = std::make_pair(std::get<0>(key), std::get<1>(key));
    const auto [found, first] = expected_.try_emplace(family, logits);
    if (first) return;
    ++comparison_.bits_compared;
    if (at::equal(found->second, logits) || !comparison_.bits_equal) return;
    comparison_.bits_equal = false;
    comparison_.first_difference = std::get<0>(key) + ", " + schedule + ", chunks " +
                                   std::to_string(std::get<2>(key)) + ", pieces " +
                                   std::to_string(std::get<3>(key));
  }

  void plan() {
    for (const Variant& variant : variants_) {
      const Calibrated& graph = graphs_.at(key_of(variant));
      const DurationModel durations = [&](const Graph&) { return graph.durations; };
      Schedule schedule = make_schedule(variant.schedule, graph.blocking.graph, graph.durations,
                                        comparison_.contention);
      verify(graph.blocking.graph, schedule);
      steps_.push_back({graph.blocking.graph, std::move(schedule)});
    }
  }

  void measure() {
    std::vector<const PlannedStep*> steps;
    for (const PlannedStep& step : steps_) steps.push_back(&step);
    const int warm_up = std::max(0, options_.warm_up);
    const auto results = rounds(steps, warm_up + std::max(1, options_.repeat));
    for (size_t i = 0; i < steps_.size(); ++i) {
      std::vector<const ForwardResult*> counted;
      for (size_t r = 0; r < results.size(); ++r) {
        check_bits(key_of(variants_[i]), variants_[i].schedule, results[r][i].logits());
        if (static_cast<int>(r) >= warm_up) counted.push_back(&results[r][i]);
      }
      comparison_.rows.push_back(row(i, counted));
    }
  }

  ComparisonRow row(size_t i, const std::vector<const ForwardResult*>& counted) const {
    const Variant& variant = variants_[i];
    const Calibrated& graph = graphs_.at(key_of(variant));
    std::vector<double> seconds;
    for (const ForwardResult* result : counted) seconds.push_back(step_seconds(*result));
    ComparisonRow row{.variant = variant, .timelines = {}, .simulated = {}};
    row.step = {median(seconds), *std::ranges::min_element(seconds),
                *std::ranges::max_element(seconds)};
    const ForwardResult& typical =
        *counted[std::ranges::find(seconds, row.step.median) - seconds.begin()];
    row.metrics = mean_metrics(typical);
    row.bound = lower_bound(graph.blocking.graph, graph.durations);
    row.simulated =
        simulate(steps_[i].graph, steps_[i].schedule, graph.durations, comparison_.contention);
    row.predicted = row.simulated.step_seconds;
    const double tokens = static_cast<double>(tokens_.ids.size());
    row.tokens_per_second = tokens / row.step.median;
    for (const StepResult& rank : typical.ranks) {
      row.bytes_sent += rank.traffic.bytes_sent;
      row.peak_activation_bytes = std::max(row.peak_activation_bytes, rank.peak_activation_bytes);
      row.timelines.push_back(rank.timeline);
      row.timelines.back().title = variant.label();
    }
    return row;
  }

  void relate() {
    double base = 0, best = 0;
    for (const ComparisonRow& row : comparison_.rows) {
      if (!row.variant.is_standard()) continue;
      best = best == 0 ? row.step.median : std::min(best, row.step.median);
      const bool plain = key_of(row.variant) == key_of({.connectivity = "standard"});
      if (plain && row.variant.schedule == "blocking") base = row.step.median;
    }
    for (ComparisonRow& row : comparison_.rows) {
      row.speedup = base / row.step.median;
      row.speedup_over_standard = best / row.step.median;
    }
  }

  Session& session_;
  const TokenBatch& tokens_;
  const ComparisonOptions& options_;
  std::vector<Variant> variants_;
  std::map<GraphKey, Calibrated> graphs_;
  std::map<std::pair<std::string, bool>, at::Tensor> expected_;
  std::vector<PlannedStep> steps_;
  Comparison comparison_;
};

}  // namespace

Durations measured_durations(const Graph& graph, const std::vector<const ForwardResult*>& rounds) {
  std::vector<std::vector<double>> seen(graph.ops().size());
  for (const ForwardResult* result : rounds) {
    std::vector<double> mean(graph.ops().size(), 0);
    for (const StepResult& rank : result->ranks) {
      for (const Span& span : rank.timeline.spans) {
        mean[span.op] += span.seconds() / static_cast<double>(result->ranks.size());
      }
    }
    for (size_t op = 0; op < mean.size(); ++op) seen[op].push_back(mean[op]);
  }
  Durations durations;
  for (auto& values : seen) durations.push_back(values.empty() ? 0 : median(values));
  return durations;
}

Comparison compare(Session& session, const TokenBatch& tokens, const ComparisonOptions& options) {
  return Comparer(session, tokens, options).run();
}

}  // namespace farskip
