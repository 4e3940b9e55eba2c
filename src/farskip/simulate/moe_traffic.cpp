#include <algorithm>
#include <string>

#include "farskip/base/error.h"
#include "farskip/model/routing_statistics.h"
#include "farskip/simulate/collectives.h"

namespace farskip {
namespace {

void check(const MoeTrafficSpec& spec, const DomainLayout& layout) {
  const auto fail = [](const char* what, std::string expected, std::string found) {
    throw ConfigError("sizes do not fit together", {.where = std::string("MoE traffic: ") + what,
                                                    .expected = std::move(expected),
                                                    .found = std::move(found)});
  };
  const int ranks = layout.domains * layout.ranks_per_domain;
  if (layout.domains < 1 || layout.ranks_per_domain < 1) fail("ranks", "at least 1", "none");
  if (spec.hidden < 1) fail("hidden", "at least 1", std::to_string(spec.hidden));
  if (spec.experts < ranks) {
    fail("experts", "at least one a rank: " + std::to_string(ranks), std::to_string(spec.experts));
  }
  if (spec.top_k < 1 || spec.top_k > spec.experts) {
    fail("top_k", "1.." + std::to_string(spec.experts), std::to_string(spec.top_k));
  }
  if (spec.groups < 1 || spec.experts % spec.groups != 0) {
    fail("groups", "a divisor of " + std::to_string(spec.experts), std::to_string(spec.groups));
  }
  const int64_t pool = int64_t{spec.experts} / spec.groups * spec.kept_groups;
  if (spec.kept_groups < 1 || spec.kept_groups > spec.groups || pool < spec.top_k) {
    fail("kept_groups", "up to groups, holding top_k experts", std::to_string(spec.kept_groups));
  }
}

// Parts of `parts` (ranks or domains) that hold one of a token's experts.
double distinct_parts(const MoeTrafficSpec& spec, int parts) {
  return distinct_ranks_grouped(spec.experts, spec.top_k, parts, spec.groups, spec.kept_groups);
}

// Rows of one token that leave its rank through the scale-up network and through the NIC.
TwoLevel rows_off_rank(const MoeTrafficSpec& spec, const DomainLayout& layout, double copies) {
  const double domains = layout.domains, local = layout.ranks_per_domain;
  const double ranks = domains * local;
  if (layout.domains == 1) return {.scale_up = copies * (ranks - 1) / ranks};
  if (spec.form == DispatchForm::per_expert) {
    return {.scale_up = copies * (local - 1) / ranks, .nic = copies * (ranks - local) / ranks};
  }
  double reached = distinct_parts(spec, layout.domains);
  if (spec.most_nodes > 0) reached = std::min<double>(reached, spec.most_nodes);
  return {.scale_up = copies * (local - 1) / local, .nic = reached * (domains - 1) / domains};
}

}  // namespace

double distinct_nodes(int experts, int top_k, int domains, int cap) {
  const double reached = distinct_ranks(experts, top_k, domains);
  return cap > 0 ? std::min<double>(reached, cap) : reached;
}

double row_bytes(int64_t hidden, DType wire) {
  const double width = static_cast<double>(hidden);
  switch (wire) {
    case DType::float8_e4m3:
      return width + 4 * width / 128;
    case DType::bfloat16:
    case DType::float16:
      return 2 * width;
    case DType::float32:
    case DType::int32:
      return 4 * width;
    case DType::int64:
    case DType::float64:
      return 8 * width;
    case DType::uint8:
      return width;
  }
  throw Error("unknown dtype on the wire");
}

MoeTraffic moe_traffic(const MoeTrafficSpec& spec, const DomainLayout& layout) {
  check(spec, layout);
  const int ranks = layout.domains * layout.ranks_per_domain;
  MoeTraffic traffic;
  traffic.copies = spec.form == DispatchForm::per_expert ? spec.top_k : distinct_parts(spec, ranks);
  traffic.off_rank_rows = rows_off_rank(spec, layout, traffic.copies);
  traffic.dispatch = traffic.off_rank_rows * row_bytes(spec.hidden, spec.dispatch_wire);
  traffic.combine = traffic.off_rank_rows * row_bytes(spec.hidden, spec.combine_wire);
  return traffic;
}

}  // namespace farskip
