#include "farskip/runtime/rank_figures.h"

#include <algorithm>
#include <utility>

#include "farskip/base/median.h"
#include "farskip/trace/intervals.h"

namespace farskip {
namespace {

// The one list of what travels between processes: read and written in this order. Figures that
// follow from others are worked out again.
template <typename Figures, typename Visit>
void visit(Figures& figures, const Visit& each) {
  auto& m = figures.metrics;
  each(figures.step_seconds), each(figures.bytes_sent), each(figures.peak_activation_bytes);
  each(figures.host_seconds), each(figures.layers_host_seconds), each(figures.gap_seconds);
  each(m.step), each(m.compute), each(m.communication), each(m.overlapped), each(m.exposed);
  each(m.idle_compute), each(m.skew), each(m.interior_communication), each(m.interior_exposed);
  each(m.backward_communication), each(m.backward_exposed);
}

double compute_gap(const Timeline& timeline) {
  std::vector<std::pair<double, double>> spans;
  for (const Span& span : timeline.spans) {
    if (span.lane == Lane::compute) spans.emplace_back(span.start, span.end);
  }
  std::ranges::sort(spans);
  std::vector<double> gaps;
  for (size_t i = 1; i < spans.size(); ++i) {
    gaps.push_back(std::max(0.0, spans[i].first - spans[i - 1].second));
  }
  return gaps.empty() ? 0 : median(std::move(gaps));
}

void append(std::vector<double>& numbers, const StepResult& result) {
  const RankFigures figures{
      .step_seconds = result.timeline.step_seconds,
      .metrics = measure_overlap(result.timeline),
      .bytes_sent = static_cast<double>(result.traffic.bytes_sent),
      .peak_activation_bytes = static_cast<double>(result.peak_activation_bytes),
      .host_seconds = result.host_seconds,
      .layers_host_seconds = result.layers_host_seconds,
      .gap_seconds = compute_gap(result.timeline)};
  visit(figures, [&](const double& value) { numbers.push_back(value); });
}

// add(timeline, by_op) adds one rank's seconds of each op of one round.
template <typename Add>
Durations gather_by_op(Session& session, const Graph& graph,
                       std::span<const ForwardResult* const> rounds, const Add& add) {
  const size_t ops = graph.ops().size();
  std::vector<std::vector<double>> own(session.groups().size(),
                                       std::vector<double>(ops * rounds.size(), 0));
  for (size_t round = 0; round < rounds.size(); ++round) {
    for (size_t i = 0; i < own.size(); ++i) {
      add(rounds[round]->ranks[i].timeline, own[i].data() + round * ops);
    }
  }
  const auto all = session.all_gather(own);
  Durations durations(ops, 0);
  if (rounds.empty()) return durations;
  for (size_t op = 0; op < ops; ++op) {
    std::vector<double> means(rounds.size(), 0);
    for (size_t round = 0; round < rounds.size(); ++round) {
      for (const auto& rank : all) {
        means[round] += rank[round * ops + op] / static_cast<double>(all.size());
      }
    }
    durations[op] = median(std::move(means));
  }
  return durations;
}

}  // namespace

std::vector<std::vector<RankFigures>> gather_figures(
    Session& session, std::span<const ForwardResult* const> results) {
  std::vector<std::vector<double>> own(session.groups().size());
  for (const ForwardResult* result : results) {
    for (size_t i = 0; i < own.size(); ++i) append(own[i], result->ranks[i]);
  }
  const auto all = session.all_gather(own);
  std::vector<std::vector<RankFigures>> figures(results.size(),
                                                std::vector<RankFigures>(all.size()));
  for (size_t rank = 0; rank < all.size(); ++rank) {
    size_t at = 0;
    for (auto& of_result : figures) {
      visit(of_result[rank], [&](double& value) { value = all[rank].at(at++); });
    }
  }
  return figures;
}

Durations gather_durations(Session& session, const Graph& graph,
                           std::span<const ForwardResult* const> rounds) {
  return gather_by_op(session, graph, rounds, [](const Timeline& timeline, double* by_op) {
    for (const Span& span : timeline.spans) by_op[span.op] += span.seconds();
  });
}

Durations gather_overlapped(Session& session, const Graph& graph,
                            std::span<const ForwardResult* const> rounds) {
  return gather_by_op(session, graph, rounds, [](const Timeline& timeline, double* by_op) {
    const Intervals communication = busy_time(timeline, Lane::communication);
    for (const Span& span : timeline.spans) {
      if (span.lane != Lane::compute || span.seconds() <= 0) continue;
      by_op[span.op] += total_seconds(intersection({{span.start, span.end}}, communication));
    }
  });
}

double step_seconds(std::span<const RankFigures> ranks) {
  double slowest = 0;
  for (const RankFigures& rank : ranks) slowest = std::max(slowest, rank.step_seconds);
  return slowest;
}

OverlapMetrics mean_metrics(std::span<const RankFigures> ranks) {
  OverlapMetrics mean;
  const double share = 1.0 / static_cast<double>(ranks.size());
  for (const RankFigures& rank : ranks) {
    const OverlapMetrics& m = rank.metrics;
    mean.step = std::max(mean.step, m.step);
    mean.compute += share * m.compute;
    mean.communication += share * m.communication;
    mean.overlapped += share * m.overlapped;
    mean.exposed += share * m.exposed;
    mean.idle_compute += share * m.idle_compute;
    mean.skew += share * m.skew;
    mean.interior_communication += share * m.interior_communication;
    mean.interior_exposed += share * m.interior_exposed;
    mean.backward_communication += share * m.backward_communication;
    mean.backward_exposed += share * m.backward_exposed;
  }
  mean.set_percentages();
  return mean;
}

OverlapMetrics median_metrics(std::span<const std::vector<RankFigures>> rounds) {
  std::vector<OverlapMetrics> means;
  for (const auto& round : rounds) means.push_back(mean_metrics(round));
  OverlapMetrics median;
  for (double OverlapMetrics::*const figure :
       {&OverlapMetrics::step, &OverlapMetrics::compute, &OverlapMetrics::communication,
        &OverlapMetrics::overlapped, &OverlapMetrics::exposed, &OverlapMetrics::idle_compute,
        &OverlapMetrics::skew, &OverlapMetrics::interior_communication,
        &OverlapMetrics::interior_exposed, &OverlapMetrics::backward_communication,
        &OverlapMetrics::backward_exposed}) {
    const auto middle = means.begin() + static_cast<std::ptrdiff_t>(means.size() / 2);
    std::ranges::nth_element(means, middle, {}, figure);
    median.*figure = (*middle).*figure;
  }
  median.set_percentages();
  return median;
}

}  // namespace farskip
