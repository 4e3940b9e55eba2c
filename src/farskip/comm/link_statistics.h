#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "farskip/comm/collective.h"

namespace farskip {

struct LinkOptions {
  double bytes_per_second = 0;  // of each direction
  double latency_seconds = 0;   // paid once a collective
};

// Throws UsageError unless the bandwidth is positive and finite and the latency 0 to 1000 s.
void check_link(const LinkOptions& link);

// Seconds that one collective keeps a rank's link busy.
double link_seconds(const LinkOptions& link, const CollectiveBytes& bytes);

// How late collectives completed against the emulated link: what waking up cost, or, where moving
// the bytes took longer than the link would have, that. Of a real path, whose `link` has no
// bandwidth, only bytes and time.
struct LinkReport {
  LinkOptions link;
  int64_t collectives = 0;
  int64_t bytes_out = 0, bytes_in = 0;  // of all ranks in the report
  int64_t bytes = 0;                    // of each collective's larger direction
  double link_seconds = 0;              // sum of what the link asked for
  double measured_seconds = 0;          // sum of what collectives took
  // Microseconds; the percentiles are over the last 65,536 collectives of each rank.
  double mean_late_us = 0, p50_late_us = 0, p99_late_us = 0, max_late_us = 0;

  // What the path really carried, latency left out; 0 where nothing was.
  double achieved_bytes_per_second() const;
};

// What one rank's link saw. Any thread may call any member.
class LinkStatistics {
 public:
  explicit LinkStatistics(const LinkOptions& link) : link_(link) {}

  // A collective that the link asked `link_seconds` for and that completed `late_seconds` after.
  void add(const CollectiveBytes& bytes, double link_seconds, double late_seconds);
  void reset();
  // Adds its figures to `report` and its lateness, in microseconds, to `late`.
  void add_to(LinkReport& report, std::vector<double>& late) const;

 private:
  const LinkOptions link_;
  mutable std::mutex mutex_;
  LinkReport sums_;              // mean_late_us holds the sum
  std::vector<double> late_us_;  // a ring once it is full
};

// A group, or the hook of one, that keeps such statistics.
class LinkBearer {
 public:
  virtual ~LinkBearer() = default;
  virtual LinkStatistics& link_statistics() = 0;
};

// What one rank's link, or those of several, saw; empty if there is none. Any thread.
std::optional<LinkReport> link_report(Group& group);
std::optional<LinkReport> link_report(std::span<const std::unique_ptr<Group>> groups);

// Forgets what was measured so far, for example after a warm-up. Any thread.
void reset_link_report(Group& group);

}  // namespace farskip
