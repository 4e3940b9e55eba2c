#include "farskip/comm/throttled.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "farskip/base/format.h"
#include "farskip/comm/hook.h"

namespace farskip {
namespace {

constexpr size_t kSamples = 65536;

// The link of one rank.
class Link final : public Hook {
 public:
  Link(const LinkOptions& options, int ranks) : options_(options), ranks_(ranks) {}

  Clock::time_point due(const Passage& passage) override {
    return passage.started + std::chrono::ceil<Clock::duration>(busy(passage));
  }
  void completed(const Passage& passage, Clock::time_point due,
                 Clock::time_point finished) override;
  bool needs_precise_timing() const override { return true; }
  std::string describe() const override {
    return "throttled(" + format_bytes(options_.bytes_per_second) + "/s, " +
           format_duration(options_.latency_seconds) + ")";
  }

  // Adds this link's figures to `report` and its lateness, in microseconds, to `late`.
  void add_to(LinkReport& report, std::vector<double>& late) const;
  void reset();

 private:
  std::chrono::duration<double> busy(const Passage& passage) const {
    // Longer than 30 years would overflow the clock.
    const double seconds = link_seconds(options_, passage.bytes_out, passage.bytes_in);
    return std::chrono::duration<double>(ranks_ == 1 ? 0 : std::min(seconds, 1e9));
  }

  const LinkOptions options_;
  const int ranks_;
  mutable std::mutex mutex_;
  LinkReport sums_;              // mean_late_us holds the sum
  std::vector<double> late_us_;  // a ring once it is full
};

void Link::completed(const Passage& passage, Clock::time_point due, Clock::time_point finished) {
  const double late = std::chrono::duration<double, std::micro>(finished - due).count();
  const std::lock_guard lock(mutex_);
  if (late_us_.size() < kSamples) {
    late_us_.push_back(late);
  } else {
    late_us_[static_cast<size_t>(sums_.collectives) % kSamples] = late;
  }
  ++sums_.collectives;
  sums_.bytes_out += passage.bytes_out;
  sums_.bytes_in += passage.bytes_in;
  sums_.link_seconds += busy(passage).count();
  sums_.mean_late_us += late;
  sums_.max_late_us = std::max(sums_.max_late_us, late);
}

void Link::add_to(LinkReport& report, std::vector<double>& late) const {
  const std::lock_guard lock(mutex_);
  report.link = options_;
  report.collectives += sums_.collectives;
  report.bytes_out += sums_.bytes_out;
  report.bytes_in += sums_.bytes_in;
  report.link_seconds += sums_.link_seconds;
  report.mean_late_us += sums_.mean_late_us;
  report.max_late_us = std::max(report.max_late_us, sums_.max_late_us);
  late.insert(late.end(), late_us_.begin(), late_us_.end());
}

void Link::reset() {
  const std::lock_guard lock(mutex_);
  sums_ = {};
  late_us_.clear();
}

std::vector<std::shared_ptr<Link>> links_of(const Group& group) {
  std::vector<std::shared_ptr<Link>> links;
  if (const auto* const target = dynamic_cast<const HookableGroup*>(&group)) {
    for (const auto& hook : target->hooks()) {
      if (auto link = std::dynamic_pointer_cast<Link>(hook)) links.push_back(std::move(link));
    }
  }
  return links;
}

std::optional<LinkReport> report_on(const std::vector<std::shared_ptr<Link>>& links) {
  if (links.empty()) return std::nullopt;
  LinkReport report;
  std::vector<double> late;
  for (const auto& link : links) link->add_to(report, late);
  if (late.empty()) return report;
  std::sort(late.begin(), late.end());
  const auto percentile = [&](double share) {
    return late[static_cast<size_t>(std::lround(share * static_cast<double>(late.size() - 1)))];
  };
  report.mean_late_us /= static_cast<double>(report.collectives);
  report.p50_late_us = percentile(0.50);
  report.p99_late_us = percentile(0.99);
  return report;
}

}  // namespace

std::vector<std::unique_ptr<Group>> make_throttled(std::vector<std::unique_ptr<Group>> inner,
                                                   LinkOptions options) {
  if (!(options.bytes_per_second > 0) || !std::isfinite(options.bytes_per_second)) {
    throw UsageError("wrong link bandwidth", {.expected = "a positive number of bytes per second",
                                              .found = std::to_string(options.bytes_per_second)});
  }
  if (!(options.latency_seconds >= 0) || options.latency_seconds > 1000) {
    throw UsageError("wrong link latency", {.expected = "0 to 1000 seconds",
                                            .found = std::to_string(options.latency_seconds)});
  }
  for (HookableGroup* group : hookable(inner, "throttled")) {
    group->add_hook(std::make_shared<Link>(options, group->size()));
  }
  return inner;
}

double link_seconds(const LinkOptions& link, int64_t bytes_out, int64_t bytes_in) {
  return link.latency_seconds +
         static_cast<double>(std::max(bytes_out, bytes_in)) / link.bytes_per_second;
}

std::optional<LinkReport> link_report(const Group& group) { return report_on(links_of(group)); }

std::optional<LinkReport> link_report(std::span<const std::unique_ptr<Group>> groups) {
  std::vector<std::shared_ptr<Link>> links;
  for (const auto& group : groups) {
    if (!group) continue;
    for (auto& link : links_of(*group)) links.push_back(std::move(link));
  }
  return report_on(links);
}

void reset_link_report(const Group& group) {
  for (const auto& link : links_of(group)) link->reset();
}

}  // namespace farskip
