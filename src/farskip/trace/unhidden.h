#pragma once

#include <optional>
#include <string>

#include "farskip/trace/timeline.h"

namespace farskip {

// A collective that was to run beside computation and did not.
struct Unhidden {
  Span collective;
  // Seconds of it without computation, here and in the simulation of the same schedule.
  double exposed = 0, predicted = 0;
  // The op that the compute lane came to next, and the collective that had to end before; without
  // one, the host launched that op late.
  std::optional<Span> held_up, by;
};

// Of the collectives that were exposed for longer than `simulated` says, the worst; nothing if all
// of them together lost less than `tolerance` of the step. The timelines are of one schedule.
std::optional<Unhidden> find_unhidden(const Timeline& measured, const Timeline& simulated,
                                      double tolerance = 0.02);

// "combine of layer 12: 1.31 ms not hidden, 0.10 ms predicted; unpermute of layer 12 waited for it"
std::string describe(const Unhidden& unhidden);

}  // namespace farskip
