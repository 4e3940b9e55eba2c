#pragma once

#include <functional>
#include <optional>

#include "farskip/trace/intervals.h"
#include "farskip/trace/timeline.h"

namespace farskip {

// The time during which a lane runs anything: the union of its spans. A collective's time starts
// when its last rank entered; waiting for that rank is skew, not communication.
Intervals busy_time(const Timeline& timeline, Lane lane);

// Communication time during which the compute lane does not run.
Intervals exposed_time(const Timeline& timeline);

// 100 x the share of these spans' time during which the compute lane runs; absent where they take
// none.
std::optional<double> percent_overlapped(const Timeline& timeline,
                                         const std::function<bool(const Span&)>& chosen);

// How much of a step's communication is hidden behind computation. Seconds. Every figure is of one
// rank. percent_overlapped alone can mislead (a slower compute lane raises it): it belongs beside
// exposed and step. Definitions and examples: docs/overlap.md.
struct OverlapMetrics {
  double step = 0;           // to the end of the last span, or step_seconds if that is later
  double compute = 0;        // the compute lane runs
  double communication = 0;  // the communication lane runs
  double overlapped = 0;     // both run
  double exposed = 0;        // communication - overlapped
  double idle_compute = 0;   // step - compute
  double skew = 0;           // sum over collectives of start - posted
  // 100 x overlapped / communication; absent where there is no communication to hide.
  std::optional<double> percent_overlapped;

  // The same without the first dispatch op in time and the last combine op in time, which have
  // nothing before or behind them to hide in; in a backward pass there is always something. With
  // chunks or micro-batches that is the one first and the one last op, not all of their layer.
  // Counts and other collectives stay in.
  double interior_communication = 0;
  double interior_exposed = 0;
  std::optional<double> interior_percent;
  // Of it, what carries gradients back: zero in a step that has no backward pass.
  double backward_communication = 0;
  double backward_exposed = 0;
  std::optional<double> backward_percent;
  // And what does not.
  std::optional<double> forward_percent;

  // Works percentages out from the seconds they follow from.
  void set_percentages();
};

// Throws Error if a span has times that are not finite, or ends before it starts.
OverlapMetrics measure_overlap(const Timeline& timeline);

// From the start of the first op that carries gradients back to the end of the step, seconds; none
// in a step without a backward pass.
std::optional<double> backward_seconds(const Timeline& timeline);

}  // namespace farskip
