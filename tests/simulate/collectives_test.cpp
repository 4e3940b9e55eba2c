#include "farskip/simulate/collectives.h"

#include <gtest/gtest.h>

#include <cmath>

#include "farskip/base/error.h"

namespace farskip {
namespace {

constexpr TrafficPattern all_kinds[] = {TrafficPattern::all_reduce, TrafficPattern::all_gather,
                                        TrafficPattern::reduce_scatter, TrafficPattern::all_to_all};

TEST(Collectives, AllReduceOfFourThousandTokensFromTheTables) {
  const double bytes = 4096.0 * 7168 * 2;
  EXPECT_NEAR(all_reduce_seconds(load_hardware("h100-sxm"), 8, bytes) * 1e6, 296, 0.5);
  EXPECT_NEAR(all_reduce_seconds(load_hardware("h200"), 8, bytes) * 1e6, 291, 0.5);
  EXPECT_NEAR(all_reduce_seconds(load_hardware("b200"), 8, bytes) * 1e6, 252, 0.5);
}

TEST(Collectives, TableIsMetAtItsPointsFlatBelowAndProportionalAbove) {
  const HardwareProfile profile = load_hardware("h200");
  for (const CollectiveTable& table : profile.tables) {
    for (size_t i = 0; i < table.bytes.size(); ++i) {
      EXPECT_NEAR(collective_seconds(profile, table.kind, table.ranks, table.bytes[i]),
                  table.seconds[i], 1e-12);
    }
    EXPECT_DOUBLE_EQ(collective_seconds(profile, table.kind, table.ranks, 0), table.seconds[0]);
    EXPECT_DOUBLE_EQ(collective_seconds(profile, table.kind, table.ranks, 4 * table.bytes.back()),
                     4 * table.seconds.back());
  }
}

TEST(Collectives, RanksWithoutATableScaleTheNearestOne) {
  const HardwareProfile profile = load_hardware("h200");
  const double bytes = 64 << 20;
  const double eight = all_gather_seconds(profile, 8, bytes);
  EXPECT_NEAR(all_gather_seconds(profile, 7, bytes), eight * (6.0 / 7) / (7.0 / 8), 1e-12);
  EXPECT_NEAR(all_gather_seconds(profile, 3, bytes),
              all_gather_seconds(profile, 2, bytes) * (2.0 / 3) / (1.0 / 2), 1e-12);
}

TEST(Collectives, RingFormulaWithoutTables) {
  HardwareProfile profile = load_hardware("h200");
  profile.tables.clear();
  const double bytes = 1e9, bandwidth = profile.ring_bandwidth.value;
  EXPECT_NEAR(all_reduce_seconds(profile, 8, bytes), 16e-6 + 1.75 * bytes / bandwidth, 1e-12);
  EXPECT_NEAR(reduce_scatter_seconds(profile, 4, bytes), 10.2e-6 + 0.75 * bytes / bandwidth, 1e-12);
  EXPECT_NEAR(all_reduce_seconds(linear_model(profile), 8, bytes), 1.75 * bytes / bandwidth, 1e-12);
}

TEST(Collectives, OverDomainsStagesAddUp) {
  const HardwareProfile profile = linear_model(load_hardware("h200"));
  const double bytes = 1e9, ring = profile.ring_bandwidth.value, nic = profile.nic_bandwidth.value;
  const double inside = 7.0 / 8 * bytes / ring, part = bytes / 8;
  EXPECT_NEAR(all_reduce_seconds(profile, 16, bytes), 2 * inside + 2 * 0.5 * part / nic, 1e-12);
  EXPECT_NEAR(all_gather_seconds(profile, 32, bytes), inside + 0.75 * part / nic, 1e-12);
  // Small exchanges pay the way between the nodes.
  const HardwareProfile real = load_hardware("h200");
  EXPECT_NEAR(all_to_all_seconds(real, 16, 1024) - all_to_all_seconds(real, 8, 512), 30e-6, 1e-6);
}

TEST(Collectives, LatencyComesOnTopOnceMoreBetweenNodes) {
  const HardwareProfile profile = load_hardware("h100-sxm");
  const TwoLevel nothing;
  EXPECT_NEAR(dispatch_seconds(profile, 8, nothing), 26.2e-6, 1e-12);
  EXPECT_NEAR(combine_seconds(profile, 8, nothing), 48.2e-6, 1e-12);
  EXPECT_NEAR(dispatch_seconds(profile, 16, nothing), 56.2e-6, 1e-12);
}

TEST(Collectives, MessagesGoThroughTheNic) {
  const HardwareProfile profile = load_hardware("h100-sxm");
  const double nothing = message_seconds(profile, 0);
  EXPECT_NEAR(nothing, profile.all_to_all_latency.value + profile.inter_node_latency.value, 1e-12);
  EXPECT_NEAR(message_seconds(profile, 1e9) - nothing, 1e9 / profile.nic_bandwidth.value, 1e-9);
}

TEST(Collectives, OneRankNeedsNoTime) {
  for (TrafficPattern kind : all_kinds) {
    EXPECT_EQ(collective_seconds(load_hardware("h200"), kind, 1, 1e9), 0);
  }
}

TEST(Collectives, TimesAreFiniteAndGrowWithSizeOnEveryProfile) {
  for (const std::string& name : hardware_names()) {
    const HardwareProfile profile = load_hardware(name);
    for (TrafficPattern kind : all_kinds) {
      for (int ranks : {2, 3, 8, 16, 64}) {
        double last = 0;
        for (double bytes = 1e6; bytes < 1e11; bytes *= 3) {
          const double seconds = collective_seconds(profile, kind, ranks, bytes);
          EXPECT_TRUE(std::isfinite(seconds) && seconds > last)
              << name << " " << to_string(kind) << " " << ranks << " " << bytes;
          last = seconds;
        }
      }
    }
  }
}

TEST(Collectives, RanksMustFillNodesEqually) {
  const HardwareProfile profile = load_hardware("h200");
  EXPECT_EQ(layout_over_domains(profile, 6).ranks_per_domain, 6);
  EXPECT_EQ(layout_over_domains(profile, 12).domains, 2);
  EXPECT_EQ(layout_over_domains(profile, 12).ranks_per_domain, 6);
  EXPECT_THROW(layout_over_domains(profile, 9), ConfigError);
  EXPECT_THROW(layout_over_domains(profile, 0), ConfigError);
  EXPECT_THROW(layout_over_domains(profile, -8), ConfigError);
}

TEST(Collectives, ImpossibleSizesAreRefused) {
  const HardwareProfile profile = load_hardware("h200");
  EXPECT_THROW(all_reduce_seconds(profile, 8, -1), ConfigError);
  EXPECT_THROW(all_reduce_seconds(profile, 8, INFINITY), ConfigError);
  EXPECT_THROW(all_reduce_seconds(profile, 8, NAN), ConfigError);
  EXPECT_THROW(dispatch_seconds(profile, 8, {.scale_up = -1}), ConfigError);
  EXPECT_THROW(dispatch_seconds(profile, 8, {.nic = NAN}), ConfigError);
}

}  // namespace
}  // namespace farskip
