#include "farskip/plan/plan.h"

#include <gtest/gtest.h>

#include "farskip/base/error.h"
#include "farskip/model/builtin.h"

namespace farskip {
namespace {

PlanRequest request(std::vector<std::string> connectivities, std::vector<int> ranks) {
  PlanRequest plan{.model = cut_layers(load_model("deepseek-v3"), 8),
                   .hardware = load_hardware("h200"),
                   .steps = {},
                   .variants = default_variants(connectivities, 4, 4)};
  for (int count : ranks) {
    plan.steps.push_back({.ranks = count,
                          .tokens = 4096,
                          .sequences = 2,
                          .dtype = DType::bfloat16,
                          .wire = DType::bfloat16,
                          .dispatch = DispatchForm::per_rank,
                          .head = HeadRows::last_of_sequence});
  }
  return plan;
}

TEST(Plan, ComparesEveryVariantForEverySize) {
  const auto rows = make_plan(request({"standard", "farskip"}, {8, 16, 32}));
  EXPECT_EQ(rows.size(), 3u * (4 + 3));
  for (const PlanRow& row : rows) {
    SCOPED_TRACE(row.variant.label());
    EXPECT_GE(row.metrics.step, row.bound.seconds() * (1 - 1e-9));
    EXPECT_GT(row.speedup, 0.99);
    EXPECT_LE(row.speedup_over_standard, row.speedup * (1 + 1e-9));
    EXPECT_GT(row.parameter_bytes, 0);
  }
  EXPECT_DOUBLE_EQ(rows[0].speedup, 1.0);
}

TEST(Plan, FarskipBeatsTheSerialStandardAndChunksBeatThatWhereLinksAreSlow) {
  const auto rows = make_plan(request({"standard", "farskip"}, {32}));
  auto step = [&](const char* connectivity, int chunks, const char* schedule) {
    for (const PlanRow& row : rows) {
      const Variant& v = row.variant;
      if (v.connectivity == connectivity && v.expert_chunks == chunks && !v.two_batch &&
          v.schedule == schedule) {
        return row.metrics.step;
      }
    }
    return 0.0;
  };
  EXPECT_LT(1.15 * step("farskip", 1, "overlapped"), step("standard", 1, "blocking"));
  EXPECT_LT(1.1 * step("farskip", 4, "overlapped"), step("farskip", 1, "overlapped"));
}

TEST(Plan, BaseIsSimulatedEvenWhenNotAskedFor) {
  PlanRequest plan = request({"farskip"}, {8});
  const auto rows = make_plan(plan);
  EXPECT_EQ(rows.size(), 3u);
  EXPECT_GT(rows[0].speedup, 1.0);
}

TEST(Plan, LeavesOutMoreChunksThanExpertsARank) {
  PlanRequest plan = request({"farskip"}, {8});
  plan.model = load_model("mixtral-8x7b");
  plan.model.layers.resize(2);
  for (const PlanRow& row : make_plan(plan)) EXPECT_EQ(row.variant.expert_chunks, 1);
}

TEST(Plan, ReplicatedFormPlansToo) {
  PlanRequest plan = request({"standard", "farskip"}, {8});
  plan.steps[0].form = ParallelForm::replicated_all_reduce;
  plan.variants = default_variants({"standard", "farskip"}, 1, 1);
  for (const PlanRow& row : make_plan(plan)) {
    if (row.variant.is_standard()) continue;
    EXPECT_GT(row.speedup, 1.1);
  }
}

TEST(Plan, RefusesWhatDoesNotExist) {
  PlanRequest plan = request({"sideways"}, {8});
  EXPECT_THROW(make_plan(plan), ConfigError);
}

}  // namespace
}  // namespace farskip
