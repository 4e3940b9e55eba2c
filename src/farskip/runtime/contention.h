#pragma once

#include <memory>
#include <span>

#include "farskip/comm/group.h"
#include "farskip/schedule/schedule.h"

namespace farskip {

struct ContentionOptions {
  int64_t bytes = 4 << 20;           // that each rank sends in one exchange, all ranks together
  int64_t device_bytes = 256 << 20;  // the same on a GPU
  double share = 1;       // what an exchange takes of the time of the products beside it: at most 1
  double seconds = 0.15;  // of each of the timed turns, about
};

// How much slower matrix products run beside all-to-alls, and all-to-alls beside matrix products,
// on these ranks and links, than each without the other: a micro-benchmark of its own, never taken
// from the runs it explains. What it costs a device never to rest is another matter
// (simulate/load.h).
// Both at least 1, the mean over all ranks of the groups, whose ranks other processes may hold.
// Collective. Throws CommError.
Contention measure_contention(const std::vector<std::unique_ptr<Group>>& groups,
                              const ContentionOptions& options = {});

}  // namespace farskip
