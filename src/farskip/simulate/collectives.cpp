#include "farskip/simulate/collectives.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "farskip/base/error.h"

namespace farskip {
namespace {

// Share of a buffer that each rank of a ring sends.
double ring_factor(TrafficPattern kind, int ranks) {
  const double share = (ranks - 1.0) / ranks;
  return kind == TrafficPattern::all_reduce ? 2 * share : share;
}

double interpolate(const CollectiveTable& table, double bytes) {
  const auto& sizes = table.bytes;
  const auto& times = table.seconds;
  if (bytes <= sizes.front()) return times.front();
  if (bytes >= sizes.back()) return times.back() * bytes / sizes.back();
  const size_t above = std::upper_bound(sizes.begin(), sizes.end(), bytes) - sizes.begin();
  const size_t below = above - 1;
  const double part = std::log(bytes / sizes[below]) / std::log(sizes[above] / sizes[below]);
  return std::exp(std::log(times[below]) * (1 - part) + std::log(times[above]) * part);
}

// The table of this kind with the nearest rank count, the smaller of two equally near; or null.
const CollectiveTable* nearest_table(const HardwareProfile& profile, TrafficPattern kind,
                                     int ranks) {
  const CollectiveTable* best = nullptr;
  for (const CollectiveTable& table : profile.tables) {
    if (table.kind != kind) continue;
    const auto distance = [ranks](const CollectiveTable& each) {
      return std::pair(std::abs(each.ranks - ranks), each.ranks);
    };
    if (!best || distance(table) < distance(*best)) best = &table;
  }
  return best;
}

double seconds_in_domain(const HardwareProfile& profile, TrafficPattern kind, int ranks,
                         double bytes) {
  if (ranks == 1) return 0;
  const double factor = ring_factor(kind, ranks);
  if (const CollectiveTable* table = nearest_table(profile, kind, ranks)) {
    return interpolate(*table, bytes) * factor / ring_factor(kind, table->ranks);
  }
  return profile.latency(kind).value + factor * bytes / profile.ring_bandwidth.value;
}

// Between domains, of a buffer that the NICs of one domain share.
double seconds_between_domains(const HardwareProfile& profile, TrafficPattern kind, int domains,
                               double bytes_per_nic) {
  return profile.inter_node_latency.value +
         ring_factor(kind, domains) * bytes_per_nic / profile.nic_bandwidth.value;
}

double seconds_over_domains(const HardwareProfile& profile, TrafficPattern kind,
                            const DomainLayout& layout, double bytes) {
  const int local = layout.ranks_per_domain, domains = layout.domains;
  const double part = bytes / local;  // what is left for one NIC
  const auto inside = [&](TrafficPattern stage, double size) {
    return seconds_in_domain(profile, stage, local, size);
  };
  const double between = seconds_between_domains(profile, kind, domains, part);
  switch (kind) {
    case TrafficPattern::all_reduce:
      return inside(TrafficPattern::reduce_scatter, bytes) + between +
             inside(TrafficPattern::all_gather, bytes);
    case TrafficPattern::all_gather:
    case TrafficPattern::reduce_scatter:
      return between + inside(kind, bytes);
    case TrafficPattern::all_to_all:
      // No stage shares work with the other: a row crosses one network or the other.
      return profile.inter_node_latency.value +
             std::max(inside(kind, bytes / domains),
                      bytes * (domains - 1.0) / domains / profile.nic_bandwidth.value);
  }
  throw Error("unknown kind of collective");
}

double moe_seconds(const HardwareProfile& profile, int ranks, TwoLevel bytes,
                   const Figure& bandwidth, const Figure& latency) {
  if (!(bytes.scale_up >= 0 && bytes.nic >= 0) || !std::isfinite(bytes.scale_up + bytes.nic)) {
    throw ConfigError("impossible number of bytes", {.where = "dispatch or combine"});
  }
  if (ranks == 1) return 0;
  const bool leaves = layout_over_domains(profile, ranks).domains > 1;
  return latency.value + (leaves ? profile.inter_node_latency.value : 0) +
         std::max(bytes.scale_up / bandwidth.value, bytes.nic / profile.nic_bandwidth.value);
}

}  // namespace

DomainLayout layout_over_domains(const HardwareProfile& profile, int ranks) {
  const int size = profile.domain_ranks;
  const int domains = ranks < 1 ? 0 : (ranks - 1) / size + 1;
  if (ranks >= 1 && ranks % domains == 0) return {domains, ranks / domains};
  throw ConfigError("ranks do not fill their nodes equally",
                    {.where = "ranks on " + profile.name,
                     .expected = "up to " + std::to_string(size) + ", or a multiple of the nodes",
                     .found = std::to_string(ranks)});
}

double dispatch_seconds(const HardwareProfile& profile, int ranks, TwoLevel bytes) {
  return moe_seconds(profile, ranks, bytes, profile.dispatch_bandwidth, profile.dispatch_latency);
}

double combine_seconds(const HardwareProfile& profile, int ranks, TwoLevel bytes) {
  return moe_seconds(profile, ranks, bytes, profile.combine_bandwidth, profile.combine_latency);
}

double collective_seconds(const HardwareProfile& profile, TrafficPattern kind, int ranks,
                          double buffer_bytes) {
  if (!(buffer_bytes >= 0) || !std::isfinite(buffer_bytes)) {
    throw ConfigError("impossible number of bytes", {.where = to_string(kind)});
  }
  const DomainLayout layout = layout_over_domains(profile, ranks);
  if (layout.domains == 1) return seconds_in_domain(profile, kind, ranks, buffer_bytes);
  return seconds_over_domains(profile, kind, layout, buffer_bytes);
}

double all_to_all_seconds(const HardwareProfile& profile, int ranks, double buffer_bytes) {
  return collective_seconds(profile, TrafficPattern::all_to_all, ranks, buffer_bytes);
}

double all_reduce_seconds(const HardwareProfile& profile, int ranks, double buffer_bytes) {
  return collective_seconds(profile, TrafficPattern::all_reduce, ranks, buffer_bytes);
}

double message_seconds(const HardwareProfile& profile, double bytes) {
  const double nic = profile.nic_bandwidth.value;
  return profile.all_to_all_latency.value + profile.inter_node_latency.value +
         bytes / (nic > 0 ? nic : profile.ring_bandwidth.value);
}

double all_gather_seconds(const HardwareProfile& profile, int ranks, double buffer_bytes) {
  return collective_seconds(profile, TrafficPattern::all_gather, ranks, buffer_bytes);
}

double reduce_scatter_seconds(const HardwareProfile& profile, int ranks, double buffer_bytes) {
  return collective_seconds(profile, TrafficPattern::reduce_scatter, ranks, buffer_bytes);
}

}  // namespace farskip
