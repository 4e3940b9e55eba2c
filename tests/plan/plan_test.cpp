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

PlanRequest training_request(std::vector<std::string> connectivities) {
  PlanRequest plan = request(connectivities, {8});
  plan.steps[0].dispatch = DispatchForm::per_expert;
  plan.training = TrainingSpec{};
  const auto kinds = recompute_kinds();
  plan.variants = default_training_variants(connectivities, 4, 4, {kinds.begin(), kinds.end()});
  return plan;
}

// Less held for more time, in the order of the kinds; what takes long is told by the row without.
TEST(PlanTraining, RecomputationTradesMemoryForTime) {
  const auto rows = make_plan(training_request({"standard", "farskip"}));
  ASSERT_EQ(rows.size(), 1 + 3 * 5u + 1 + 2 * 5);
  const PlanRow* kept = nullptr;
  const PlanRow* all = nullptr;
  for (const PlanRow& row : rows) {
    SCOPED_TRACE(row.variant.label());
    EXPECT_GE(row.metrics.step, row.bound.seconds() * (1 - 1e-9));
    if (row.variant.schedule != "overlapped") continue;
    ASSERT_TRUE(row.recompute_cost.has_value());
    if (row.variant.recompute == RecomputeKind::none) {
      kept = &row;
      EXPECT_EQ(*row.recompute_cost, 0);
      continue;
    }
    EXPECT_NEAR(*row.recompute_cost, row.metrics.step / kept->metrics.step - 1, 1e-12);
    EXPECT_GT(*row.recompute_cost, 0);
    EXPECT_LT(*row.recompute_cost, 0.3);
    EXPECT_LT(row.peak_activation_bytes, 0.9 * kept->peak_activation_bytes);
    if (row.variant.recompute == RecomputeKind::all) all = &row;
    // Of so few layers, two micro-batches hold most where they meet.
    if (row.variant.recompute == RecomputeKind::all_and_dispatch && !row.variant.two_batch) {
      EXPECT_LT(row.peak_activation_bytes, 0.9 * all->peak_activation_bytes);
    }
  }
}

TEST(PlanTraining, TellsThePassesApart) {
  for (const PlanRow& row : make_plan(training_request({"standard", "farskip"}))) {
    SCOPED_TRACE(row.variant.label());
    ASSERT_TRUE(row.forward_overlap && row.backward_overlap);
    if (row.variant.schedule == "blocking") {
      EXPECT_EQ(*row.forward_overlap, 0);
      EXPECT_EQ(*row.backward_overlap, 0);
    } else if (row.variant.connectivity == "farskip") {
      EXPECT_GT(*row.forward_overlap, 75);
      EXPECT_GT(*row.backward_overlap, 75);
      EXPECT_GT(row.speedup, 1.05);
    } else if (row.variant.rewrites() == "-") {
      // The standard connectivity has shared experts alone to hide behind; backward, weights too.
      EXPECT_LT(*row.forward_overlap, 50);
      EXPECT_GT(*row.backward_overlap, *row.forward_overlap);
    }
  }
}

// Every forward op and its gradients: more than thrice what the forward step takes.
TEST(PlanTraining, TakesMoreThanThreeForwardSteps) {
  PlanRequest training = training_request({"standard"}), forward = training;
  forward.training.reset();
  training.variants = forward.variants = {{.schedule = "blocking"}};
  const double step = make_plan(training)[0].metrics.step,
               once = make_plan(forward)[0].metrics.step;
  EXPECT_GT(step, 3 * once);
  EXPECT_LT(step, 6 * once);
}

// A quarter of the layers in a quarter of the time, but for filling and draining.
TEST(PlanTraining, StagesTakeTheirShareAndTheBubble) {
  PlanRequest plan = training_request({"farskip"});
  plan.variants = {{.connectivity = "farskip"}};
  plan.training->micro_batches = 8;
  const PlanRow whole = make_plan(plan)[0];
  plan.training->stages = 4;
  plan.keep_timelines = true;
  const PlanRow staged = make_plan(plan)[0];
  const double share = whole.metrics.step / 4, bubble = 1 + 3.0 / 8;
  EXPECT_GT(staged.metrics.step, 1.1 * share);
  EXPECT_LT(staged.metrics.step, 1.4 * bubble * share);
  EXPECT_LT(staged.parameter_bytes, 0.5 * whole.parameter_bytes);
  EXPECT_LT(staged.tokens_per_second, whole.tokens_per_second);
  EXPECT_NEAR(staged.tokens_per_second * 4 * staged.metrics.step,
              whole.tokens_per_second * whole.metrics.step, 1e-3);
  ASSERT_TRUE(staged.forward_overlap && staged.backward_overlap);
  EXPECT_GT(*staged.forward_overlap, 50);
  EXPECT_FALSE(staged.timeline.spans.empty());
  // Two micro-batches interleaved are another way to have several.
  plan.variants = {{.two_batch = true}, {.connectivity = "farskip"}};
  EXPECT_EQ(make_plan(plan).size(), 1u);
  plan.training->stages = 9;
  EXPECT_THROW(make_plan(plan), UsageError);
}

TEST(PlanTraining, RefusesFormsWithoutABackward) {
  PlanRequest plan = training_request({"farskip"});
  plan.steps[0].dispatch = DispatchForm::per_rank;
  EXPECT_THROW(make_plan(plan), UnsupportedError);
  plan.steps[0].dispatch = DispatchForm::per_expert;
  plan.steps[0].form = ParallelForm::replicated_all_reduce;
  EXPECT_THROW(make_plan(plan), UnsupportedError);
}

TEST(Plan, LabelsNameWhatIsComputedAgain) {
  EXPECT_EQ(Variant{}.label(), "standard, overlapped");
  const Variant variant{
      .connectivity = "farskip", .expert_chunks = 2, .recompute = RecomputeKind::all};
  EXPECT_EQ(variant.label(), "farskip, chunks 2, recompute all, overlapped");
}

TEST(Plan, RefusesWhatDoesNotExist) {
  PlanRequest plan = request({"sideways"}, {8});
  EXPECT_THROW(make_plan(plan), ConfigError);
}

}  // namespace
}  // namespace farskip
