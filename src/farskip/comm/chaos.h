#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "farskip/comm/group.h"

namespace farskip {

// One collective of one rank, to be broken on purpose.
struct ChaosTarget {
  int rank = 0;
  int64_t collective = 0;  // from 0, in the rank's posting order
};

struct ChaosOptions {
  // Every collective is held back before entering, and stays unfinished to its caller after
  // completing, each for a random time of 0 to this many seconds. The second delay does not hold up
  // later collectives, so Works finish out of order.
  double max_delay_seconds = 2e-3;
  // The collective fails with a CommError.
  std::optional<ChaosTarget> fail;
  // The rank never enters the collective: the others run into their deadline.
  std::optional<ChaosTarget> stall;
};

// Disturbs the timing of every rank, never the data: results must be the same to the bit. Delays
// depend on the seed, the rank and the collective's index only. Throws UsageError unless the delay
// is 0 to 60 s and targets lie in the group, UnsupportedError for a backend without hooks.
std::vector<std::unique_ptr<Group>> make_chaos(std::vector<std::unique_ptr<Group>> inner,
                                               uint64_t seed, ChaosOptions options = {});

}  // namespace farskip
