#include <gtest/gtest.h>

#include <cmath>

#include "farskip/base/error.h"
#include "farskip/simulate/collectives.h"

namespace farskip {
namespace {

enum class Wire { bf16_per_expert, bf16, fp8 };

MoeTrafficSpec deepseek_v3(Wire wire) {
  MoeTrafficSpec spec{.hidden = 7168, .experts = 256, .top_k = 8};
  if (wire == Wire::bf16_per_expert) spec.form = DispatchForm::per_expert;
  if (wire == Wire::fp8) spec.dispatch_wire = DType::float8_e4m3;
  return spec;
}

// Seconds of dispatch and combine of `tokens` tokens, without latency.
TwoLevel linear_seconds(const char* hardware, int ranks, const MoeTrafficSpec& spec,
                        double tokens) {
  const HardwareProfile profile = linear_model(load_hardware(hardware));
  const MoeTraffic traffic = moe_traffic(spec, layout_over_domains(profile, ranks));
  return {dispatch_seconds(profile, ranks, traffic.dispatch * tokens),
          combine_seconds(profile, ranks, traffic.combine * tokens)};
}

TEST(MoeTraffic, BytesOfOneTokenInADomain) {
  const MoeTraffic fp8 = moe_traffic(deepseek_v3(Wire::fp8), {1, 8});
  EXPECT_NEAR(fp8.copies, 5.295, 5e-4);
  EXPECT_NEAR(fp8.dispatch.scale_up, 34246, 0.5);
  EXPECT_NEAR(fp8.combine.scale_up, 66416, 0.5);
  EXPECT_EQ(fp8.dispatch.nic, 0);
  const MoeTraffic wide = moe_traffic(deepseek_v3(Wire::fp8), {1, 32});
  EXPECT_NEAR(wide.copies, 7.267, 5e-4);
  EXPECT_NEAR(wide.dispatch.scale_up, 52038, 0.5);
  EXPECT_NEAR(wide.combine.scale_up, 100921, 0.5);
  const MoeTraffic plain = moe_traffic(deepseek_v3(Wire::bf16_per_expert), {1, 8});
  EXPECT_DOUBLE_EQ(plain.dispatch.scale_up, 100352);
  EXPECT_DOUBLE_EQ(moe_traffic(deepseek_v3(Wire::bf16_per_expert), {1, 32}).combine.scale_up,
                   111104);
  EXPECT_EQ(row_bytes(7168, DType::float8_e4m3), 7392);
  EXPECT_EQ(row_bytes(7168, DType::bfloat16), 14336);
}

TEST(MoeTraffic, GroupLimitedRoutingTouchesFewerRanksAndNodes) {
  MoeTrafficSpec spec = deepseek_v3(Wire::bf16);
  spec.groups = 8;
  spec.kept_groups = 4;
  EXPECT_NEAR(moe_traffic(spec, {1, 8}).copies, 3.63, 5e-3);
  EXPECT_NEAR(moe_traffic(spec, {1, 32}).copies, 6.60, 5e-3);
  EXPECT_NEAR(moe_traffic(spec, {4, 8}).off_rank_rows.nic, 2.93 * 3 / 4, 5e-3);
  MoeTrafficSpec v2{.hidden = 5120, .experts = 160, .top_k = 6, .groups = 8, .kept_groups = 3};
  EXPECT_NEAR(moe_traffic(v2, {1, 8}).copies, 2.77, 5e-3);
  v2.groups = v2.kept_groups = 1;
  EXPECT_NEAR(moe_traffic(v2, {1, 8}).copies, 4.46, 5e-3);
}

TEST(MoeTraffic, CopiesBetweenNodes) {
  EXPECT_NEAR(distinct_nodes(256, 8, 2) * 1 / 2, 0.997, 5e-4);
  EXPECT_NEAR(distinct_nodes(256, 8, 4) * 3 / 4, 2.711, 5e-4);
  EXPECT_NEAR(distinct_nodes(256, 8, 8) * 7 / 8, 4.633, 5e-4);
  EXPECT_EQ(distinct_nodes(256, 8, 8, 4), 4);
}

// DeepEP on H100, 4096 tokens, FP8 dispatch and BF16 combine.
TEST(MoeTraffic, ByteModelRows) {
  const struct {
    int ranks, most_nodes;
    double dispatch_us, combine_us;
  } rows[] = {{8, 0, 506, 982}, {16, 0, 670, 1300}, {32, 0, 1824, 3537}, {64, 4, 2355, 4567}};
  for (const auto& row : rows) {
    MoeTrafficSpec spec = deepseek_v3(Wire::fp8);
    spec.most_nodes = row.most_nodes;
    const TwoLevel seconds = linear_seconds("h100-sxm", row.ranks, spec, 4096);
    EXPECT_NEAR(seconds.scale_up * 1e6, row.dispatch_us, 0.5) << row.ranks;
    EXPECT_NEAR(seconds.nic * 1e6, row.combine_us, 0.5) << row.ranks;
  }
}

// Nanoseconds of communication per token and layer, DeepSeek-V3.
TEST(MoeTraffic, CommunicationOfALayer) {
  const struct {
    const char* hardware;
    Wire wire;
    double at_8, at_16, at_32;
  } rows[] = {
      {"h200", Wire::bf16_per_expert, 725, 2549, 3823},
      {"h200", Wire::bf16, 480, 635, 1727},
      {"h200", Wire::fp8, 363, 481, 1309},
      {"h100-sxm", Wire::fp8, 363, 481, 1309},
      {"mi300x", Wire::bf16_per_expert, 721, 2549, 3823},
      {"mi300x", Wire::bf16, 477, 635, 1727},
      {"mi300x", Wire::fp8, 357, 481, 1309},
  };
  for (const auto& row : rows) {
    const std::pair<int, double> expected[] = {{8, row.at_8}, {16, row.at_16}, {32, row.at_32}};
    for (const auto& [ranks, nanoseconds] : expected) {
      const TwoLevel seconds = linear_seconds(row.hardware, ranks, deepseek_v3(row.wire), 1);
      EXPECT_NEAR((seconds.scale_up + seconds.nic) * 1e9, nanoseconds, 0.5)
          << row.hardware << " " << ranks;
    }
  }
}

TEST(MoeTraffic, OneRankSendsNothing) {
  const MoeTraffic traffic = moe_traffic(deepseek_v3(Wire::bf16), {1, 1});
  EXPECT_EQ(traffic.dispatch.scale_up, 0);
  EXPECT_EQ(traffic.combine.nic, 0);
  EXPECT_EQ(dispatch_seconds(load_hardware("h200"), 1, traffic.dispatch), 0);
}

TEST(MoeTraffic, MoreRanksMoreBytesAndNeverMoreThanPerExpert) {
  double last = 0;
  for (int ranks = 1; ranks <= 256; ranks *= 2) {
    const double once = moe_traffic(deepseek_v3(Wire::bf16), {1, ranks}).dispatch.scale_up;
    const double plain =
        moe_traffic(deepseek_v3(Wire::bf16_per_expert), {1, ranks}).dispatch.scale_up;
    EXPECT_GE(once, last);
    EXPECT_LE(once, plain * (1 + 1e-9));
    last = once;
  }
  // One expert a rank: every copy goes elsewhere.
  EXPECT_NEAR(last, moe_traffic(deepseek_v3(Wire::bf16_per_expert), {1, 256}).dispatch.scale_up,
              1e-3);
}

TEST(MoeTraffic, SizesThatDoNotFitAreRefused) {
  const auto refused = [](auto change) {
    MoeTrafficSpec spec = deepseek_v3(Wire::bf16);
    change(spec);
    EXPECT_THROW(moe_traffic(spec, {1, 8}), ConfigError);
  };
  refused([](MoeTrafficSpec& spec) { spec.hidden = 0; });
  refused([](MoeTrafficSpec& spec) { spec.experts = 4; });
  refused([](MoeTrafficSpec& spec) { spec.top_k = 0; });
  refused([](MoeTrafficSpec& spec) { spec.top_k = 257; });
  refused([](MoeTrafficSpec& spec) { spec.groups = 7; });
  refused([](MoeTrafficSpec& spec) { spec.groups = 0; });
  refused([](MoeTrafficSpec& spec) { spec.kept_groups = 2; });
  refused([](MoeTrafficSpec& spec) {
    spec.groups = 64;  // 4 experts each: one kept group can not hold 8
    spec.kept_groups = 1;
  });
  EXPECT_THROW(moe_traffic(deepseek_v3(Wire::bf16), {0, 8}), ConfigError);
}

}  // namespace
}  // namespace farskip
