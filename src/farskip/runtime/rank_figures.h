#pragma once

#include <span>
#include <vector>

#include "farskip/runtime/session.h"
#include "farskip/schedule/schedule.h"
#include "farskip/trace/metrics.h"

namespace farskip {

// What one rank's step comes to.
struct RankFigures {
  double step_seconds = 0;
  OverlapMetrics metrics;
  double bytes_sent = 0;  // to other ranks
  double peak_activation_bytes = 0;
  double host_seconds = 0, layers_host_seconds = 0;  // as StepResult
  double gap_seconds = 0;  // between a compute op's end and the next one's start, the median
};

// Figures of every rank, of this process or another, for each result; the same on every process.
// result[i][rank]. Collective. Throws CommError.
std::vector<std::vector<RankFigures>> gather_figures(Session& session,
                                                     std::span<const ForwardResult* const> results);

// Seconds of each op: the median over results, which are rounds of one graph, of the mean over all
// ranks; the same on every process. Collective. Throws CommError.
Durations gather_durations(Session& session, const Graph& graph,
                           std::span<const ForwardResult* const> rounds);

// Likewise, of each compute op what lay beside communication.
Durations gather_overlapped(Session& session, const Graph& graph,
                            std::span<const ForwardResult* const> rounds);

// A step takes as long as its slowest rank. Seconds.
double step_seconds(std::span<const RankFigures> ranks);

// The mean over ranks, but for the step.
OverlapMetrics mean_metrics(std::span<const RankFigures> ranks);

// Each figure's median over rounds of mean_metrics.
OverlapMetrics median_metrics(std::span<const std::vector<RankFigures>> rounds);

}  // namespace farskip
