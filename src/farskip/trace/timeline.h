#pragma once

#include <string>
#include <vector>

#include "farskip/base/lane.h"

namespace farskip {

// One op on one lane of one rank. Seconds from the step's start.
struct Span {
  int op = -1;
  std::string name;  // e.g. "dispatch", "attention core"
  int layer = 0;     // from 1; 0: before or after the layers
  int micro_batch = 0, chunk = 0, piece = 0;
  Lane lane = Lane::compute;
  // Communication: posted by this rank at `posted`; `start` is when the last rank entered, so
  // that skew (start - posted) is told apart from transfer. Compute: posted = start.
  double posted = 0, start = 0, end = 0;
  double seconds() const { return end - start; }
};

// One step of one rank, executed or simulated: the same record, so that one set of metrics, traces
// and pictures serves both.
struct Timeline {
  enum class Origin { measured, simulated };
  Origin origin = Origin::measured;
  std::string title;  // e.g. "farskip, overlapped"
  int rank = 0;
  double step_seconds = 0;  // from the first launch to the end of the last op
  std::vector<Span> spans;  // any order
};

}  // namespace farskip
