#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "farskip/comm/group.h"

namespace farskip {

struct LinkOptions {
  double bytes_per_second = 0;  // of each direction
  double latency_seconds = 0;   // paid once a collective
};

// How late collectives completed against the emulated link: what waking up cost, or, where moving
// the bytes took longer than the link would have, that.
struct LinkReport {
  LinkOptions link;
  int64_t collectives = 0;
  int64_t bytes_out = 0, bytes_in = 0;  // of all ranks in the report
  double link_seconds = 0;              // sum of what the link asked for
  // Microseconds; the percentiles are over the last 65,536 collectives of each rank.
  double mean_late_us = 0, p50_late_us = 0, p99_late_us = 0, max_late_us = 0;
};

// Gives each rank an emulated full-duplex link. A collective keeps it busy for
//     max over the two directions of (latency + bytes to or from other ranks / bandwidth)
// from when its last rank entered (WorkTimes::started); bytes as count_bytes in collective.h says.
// The link is busy in order: a collective enters when the previous one is due. The bytes are really
// moved when that time begins; the rest of it the communication thread sleeps. A group of one rank
// needs no link. Throws UsageError unless the bandwidth is positive and finite and the latency 0 to
// 1000 s, UnsupportedError for a backend without hooks.
std::vector<std::unique_ptr<Group>> make_throttled(std::vector<std::unique_ptr<Group>> inner,
                                                   LinkOptions options);

// Seconds that one collective keeps a rank's link busy.
double link_seconds(const LinkOptions& link, int64_t bytes_out, int64_t bytes_in);

// What one rank's link, or those of several, saw; empty if there is none. Any thread.
std::optional<LinkReport> link_report(const Group& group);
std::optional<LinkReport> link_report(std::span<const std::unique_ptr<Group>> groups);

// Forgets what was measured so far, for example after a warm-up. Any thread.
void reset_link_report(const Group& group);

}  // namespace farskip
