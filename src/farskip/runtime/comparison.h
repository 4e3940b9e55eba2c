#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "farskip/plan/plan.h"
#include "farskip/runtime/bits_check.h"
#include "farskip/runtime/session.h"
#include "farskip/simulate/load.h"
#include "farskip/trace/metrics.h"

namespace farskip {

// What a comparison runs, and how.
struct ComparisonOptions {
  std::vector<Variant> variants;  // standard + blocking is added in front if it is not there
  // Of those that are not standard, run only the one that is foreseen to be the fastest.
  bool choose = false;
  RoutingMode routing = RoutingMode::model;
  DispatchForm dispatch = DispatchForm::per_expert;
  bool fp8_wire = false;  // as StepForm
  const RoutingRecord* replay = nullptr;
  at::ScalarType dtype = at::kFloat;
  bool training = false;  // forward and backward, gradients of the weights in the same dtype
  int repeat = 5;         // counted rounds; in each every variant runs once, in turn
  int warm_up = 1;        // rounds before them
  bool records = true;    // as ExecutorOptions
  int threads = 1;        // compute threads of each rank; contention is measured with one
};

// Median and spread over the rounds of a step; a step takes as long as its slowest rank.
struct Sample {
  double median = 0, smallest = 0, largest = 0;
};

struct ComparisonRow {
  Variant variant;
  Sample step;                   // seconds
  OverlapMetrics metrics;        // means over ranks, each figure the median over rounds
  double tokens_per_second = 0;  // of all ranks
  double speedup = 0, speedup_over_standard = 0;
  // From op durations of blocking runs of the same graph, one in each round: the machine's slow
  // spells then hit both alike.
  LowerBound bound;                   // at the median durations
  double predicted = 0;               // seconds, by simulation with them
  double over_bound = 0;              // step / bound, the median of the rounds' ratios
  double over_loaded_bound = 0;       // the same at the clock that such a load leaves (LoadModel)
  double prediction_error = 0;        // predicted / step - 1, likewise
  double compute_slowdown = 0;        // compute's time over that in the blocking run, likewise
  int64_t bytes_sent = 0;             // in one step, all ranks, to other ranks
  int64_t peak_activation_bytes = 0;  // of the fullest rank
  double predicted_peak_bytes = 0;    // by the schedule, at expected sizes (schedule/memory.h)
  // On a device, of rounds of their own without timelines, which cost the host two events an op: a
  // step, and how long the slowest rank's host takes to launch one, and of it the layers' ops.
  Sample untimed_step, host, layers_host;
  double untimed_speedup_over_standard = 0;  // over the standard row that is the fastest there
  LoadModel load;                            // of its graph
  // How much slower ops are beside communication, and where compute does not rest: by kind, where
  // kinds were told apart.
  std::map<OpKind, double> contention_by_kind, load_by_kind;
  std::vector<Timeline> timelines;  // of the median round, of the ranks held here
  Timeline simulated;
};

// What a variant is foreseen to take, from blocking runs alone.
struct Foreseen {
  Variant variant;
  double seconds = 0;
};

struct Comparison {
  std::vector<ComparisonRow> rows;
  std::vector<Foreseen> weighed;  // by `choose`, the fastest first
  Contention contention;
  BitsVerdict bits;  // over all schedules and rewrites that keep bits
};

// Measures the variants against each other on one session: blocking runs of every graph give the op
// durations that schedules are made from, and choices; then all variants run in turn, `repeat`
// times, and with them each graph's blocking schedule, whose op durations bounds and predictions
// come from. Contention comes from measure_contention, the load model of a device from runs of the
// blocking schedule whose compute does not wait. On a device a step that counts comes behind others
// of its own kind, as in a loop. Where ranks live in several processes, each makes the same call
// and gets the same figures. Progress goes to stderr on a terminal.
Comparison compare(Session& session, const TokenBatch& tokens, const ComparisonOptions& options);

}  // namespace farskip
