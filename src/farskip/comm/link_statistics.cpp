#include "farskip/comm/link_statistics.h"

#include <algorithm>
#include <cmath>

#include "farskip/comm/hook.h"

namespace farskip {
namespace {

constexpr size_t kSamples = 65536;

std::vector<LinkStatistics*> links_of(Group& group) {
  std::vector<LinkStatistics*> links;
  if (auto* const bearer = dynamic_cast<LinkBearer*>(&group)) {
    links.push_back(&bearer->link_statistics());
  }
  if (const auto* const target = dynamic_cast<const HookableGroup*>(&group)) {
    for (const auto& hook : target->hooks()) {
      if (auto* const bearer = dynamic_cast<LinkBearer*>(hook.get())) {
        links.push_back(&bearer->link_statistics());
      }
    }
  }
  return links;
}

std::optional<LinkReport> report_on(const std::vector<LinkStatistics*>& links) {
  if (links.empty()) return std::nullopt;
  LinkReport report;
  std::vector<double> late;
  for (const LinkStatistics* link : links) link->add_to(report, late);
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

void check_link(const LinkOptions& link) {
  if (!(link.bytes_per_second > 0) || !std::isfinite(link.bytes_per_second)) {
    throw UsageError("wrong link bandwidth", {.expected = "a positive number of bytes per second",
                                              .found = std::to_string(link.bytes_per_second)});
  }
  if (!(link.latency_seconds >= 0) || link.latency_seconds > 1000) {
    throw UsageError("wrong link latency", {.expected = "0 to 1000 seconds",
                                            .found = std::to_string(link.latency_seconds)});
  }
}

double link_seconds(const LinkOptions& link, const CollectiveBytes& bytes) {
  return link.latency_seconds +
         static_cast<double>(std::max(bytes.out, bytes.in)) / link.bytes_per_second;
}

double LinkReport::achieved_bytes_per_second() const {
  const double seconds = measured_seconds - static_cast<double>(collectives) * link.latency_seconds;
  return seconds > 0 ? static_cast<double>(bytes) / seconds : 0;
}

void LinkStatistics::add(const CollectiveBytes& bytes, double link_seconds, double late_seconds) {
  const double late = late_seconds * 1e6;
  const std::lock_guard lock(mutex_);
  if (late_us_.size() < kSamples) {
    late_us_.push_back(late);
  } else {
    late_us_[static_cast<size_t>(sums_.collectives) % kSamples] = late;
  }
  ++sums_.collectives;
  sums_.bytes_out += bytes.out;
  sums_.bytes_in += bytes.in;
  sums_.bytes += std::max(bytes.out, bytes.in);
  sums_.link_seconds += link_seconds;
  sums_.measured_seconds += link_seconds + late_seconds;
  sums_.mean_late_us += late;
  sums_.max_late_us = std::max(sums_.max_late_us, late);
}

void LinkStatistics::add_to(LinkReport& report, std::vector<double>& late) const {
  const std::lock_guard lock(mutex_);
  report.link = link_;
  report.collectives += sums_.collectives;
  report.bytes_out += sums_.bytes_out;
  report.bytes_in += sums_.bytes_in;
  report.bytes += sums_.bytes;
  report.link_seconds += sums_.link_seconds;
  report.measured_seconds += sums_.measured_seconds;
  report.mean_late_us += sums_.mean_late_us;
  report.max_late_us = std::max(report.max_late_us, sums_.max_late_us);
  late.insert(late.end(), late_us_.begin(), late_us_.end());
}

void LinkStatistics::reset() {
  const std::lock_guard lock(mutex_);
  sums_ = {};
  late_us_.clear();
}

std::optional<LinkReport> link_report(Group& group) { return report_on(links_of(group)); }

std::optional<LinkReport> link_report(std::span<const std::unique_ptr<Group>> groups) {
  std::vector<LinkStatistics*> links;
  for (const auto& group : groups) {
    if (!group) continue;
    for (LinkStatistics* link : links_of(*group)) links.push_back(link);
  }
  return report_on(links);
}

void reset_link_report(Group& group) {
  for (LinkStatistics* link : links_of(group)) link->reset();
}

}  // namespace farskip
