#pragma once

#include "farskip/graph/graph.h"
#include "farskip/simulate/hardware.h"

namespace farskip {

// Costs of communication. Bytes are of one rank or one token, seconds of one collective in which
// all ranks enter at once. Formulas and worked examples: docs/formulas.md sections 2 and 3.

// How `ranks` ranks lie over scale-up domains: as few domains as hold them, equally filled.
// Throws ConfigError where they can not be (9 ranks on domains of 8).
struct DomainLayout {
  int domains = 1, ranks_per_domain = 1;
};
DomainLayout layout_over_domains(const HardwareProfile& profile, int ranks);

// Expected number of domains that hold at least one of a token's experts, at most `cap` (0: none).
double distinct_nodes(int experts, int top_k, int domains, int cap = 0);

// Bytes of one row of `hidden` values on the wire: float8_e4m3 carries a 4-byte scale for every 128
// values.
double row_bytes(int64_t hidden, DType wire);

// What an MoE layer's all-to-alls move, and how.
struct MoeTrafficSpec {
  int64_t hidden = 0;
  int experts = 0, top_k = 0;
  int groups = 1, kept_groups = 1;  // group-limited routing, groups laid over ranks in order
  DispatchForm form = DispatchForm::per_rank;
  DType dispatch_wire = DType::bfloat16;
  DType combine_wire = DType::bfloat16;
  int most_nodes = 0;  // a router's own cap on domains per token; 0: none
};

// Rows or bytes that leave a rank over the scale-up network and over its NIC.
struct TwoLevel {
  double scale_up = 0, nic = 0;
  TwoLevel operator*(double factor) const { return {scale_up * factor, nic * factor}; }
};

// Rows and bytes that one token puts on the wire, its own rank's share not counted.
struct MoeTraffic {
  double copies = 0;           // per-expert: top_k; per-rank: distinct ranks
  TwoLevel off_rank_rows;      // rows through each network
  TwoLevel dispatch, combine;  // bytes
};

// Traffic of one token. Within a domain: copies x (R-1)/R rows. Over several: per-expert rows go
// straight to their rank; per-rank ones once to each remote domain through the NIC, and from there
// to each rank that needs them through the scale-up network. Combine goes the way back.
// Throws ConfigError for sizes that do not fit together.
MoeTraffic moe_traffic(const MoeTrafficSpec& spec, const DomainLayout& layout);

// Seconds of a dispatch or combine in which one rank sends `bytes`. Both networks work at once:
// the slower one counts. Latency is added, once more where the NIC is used; 0 on one rank.
double dispatch_seconds(const HardwareProfile& profile, int ranks, TwoLevel bytes);
double combine_seconds(const HardwareProfile& profile, int ranks, TwoLevel bytes);

// Seconds of a message to the same rank of another pipeline stage, which is taken to lie in another
// domain: through the NIC, in a profile without one through the scale-up network.
double message_seconds(const HardwareProfile& profile, double bytes);

// Seconds of a small exchange such as counts: the library's all-to-all, by buffer size.
double all_to_all_seconds(const HardwareProfile& profile, int ranks, double buffer_bytes);

// Seconds of collectives over a buffer (the total one: what a rank holds after an all-gather,
// before a reduce-scatter). From the profile's table where it has one, interpolated in log size and
// log time, below it flat and above it proportional; for a rank count without a table, the nearest
// one scaled by the ring formula's factor. Without tables latency + factor x bytes / ring
// bandwidth, factor 2(n-1)/n for all-reduce and (n-1)/n else. Over several domains in stages:
// within, between through the NICs, within. 0 on one rank. Throws ConfigError for a negative or
// infinite size.
double all_reduce_seconds(const HardwareProfile& profile, int ranks, double buffer_bytes);
double all_gather_seconds(const HardwareProfile& profile, int ranks, double buffer_bytes);
double reduce_scatter_seconds(const HardwareProfile& profile, int ranks, double buffer_bytes);

// By kind; the named functions call it.
double collective_seconds(const HardwareProfile& profile, TrafficPattern kind, int ranks,
                          double buffer_bytes);

}  // namespace farskip
