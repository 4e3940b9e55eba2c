#include "farskip/runtime/recording_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "farskip/graph/build.h"
#include "farskip/runtime/kernels.h"
#include "fixture.h"

namespace farskip::testing {
namespace {

// Steps of one form, and what of them is recorded.
struct Planned {
  Planned(const Fixture& fixture, int ranks, const StepForm& form)
      : step(fixture.plan("farskip", ranks, fixture.golden_tokens(), form)),
        plans(plan_ops(step.graph, kernels)),
        recordings(plan_recordings(step.graph, plans, step.schedule.steps)) {}

  std::set<OpKind> recorded_kinds() const {
    std::set<OpKind> kinds;
    for (const auto& stretch : recordings.stretches) {
      for (const Step& step_of : stretch) kinds.insert(step.graph.op(step_of.op).kind);
    }
    return kinds;
  }

  const KernelTable kernels = step_kernels();
  PlannedStep step;
  std::vector<OpPlan> plans;
  RecordingPlan recordings;
};

std::vector<StepForm> forms() {
  std::vector<StepForm> all;
  for (const char* schedule : {"blocking", "released", "overlapped"}) {
    all.push_back({.schedule = schedule});
    all.push_back({.schedule = schedule, .expert_chunks = 2, .pieces = 2});
    all.push_back({.schedule = schedule, .two_batch = true});
    all.push_back({.schedule = schedule, .dispatch = DispatchForm::per_rank, .fp8_wire = true});
  }
  return all;
}

TEST(RecordingPlan, CoversWhatTheBatchAloneDecides) {
  const Fixture fixture("deepseek_v3");
  const Planned planned(fixture, 2, {.schedule = "overlapped"});
  const std::set<OpKind> expected = {OpKind::sum,
                                     OpKind::norm,
                                     OpKind::sum_norm,
                                     OpKind::attention_prepare,
                                     OpKind::attention_core,
                                     OpKind::output_projection,
                                     OpKind::shared_experts,
                                     OpKind::dense_mlp,
                                     OpKind::router,
                                     OpKind::plan,
                                     OpKind::permute,
                                     OpKind::unpermute};
  EXPECT_EQ(planned.recorded_kinds(), expected);
  // Fewer launches than ops.
  size_t ops = 0;
  for (const auto& stretch : planned.recordings.stretches) ops += stretch.size();
  EXPECT_LT(2 * planned.recordings.stretches.size(), ops);
}

TEST(RecordingPlan, CoversExpertsWhoseProductsAreGrouped) {
  const Fixture fixture("deepseek_v3");
  for (const int ranks : {1, 2}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const std::set<OpKind> kinds =
          Planned(fixture, ranks, {.schedule = "overlapped", .dtype = dtype}).recorded_kinds();
      // A rank that has all experts gathers their rows as it multiplies them.
      EXPECT_EQ(kinds.contains(OpKind::permute), ranks > 1);
      EXPECT_TRUE(kinds.contains(OpKind::unpermute));
      EXPECT_EQ(kinds.contains(OpKind::experts), dtype == at::kBFloat16);
    }
  }
}

// A whole arrives with the first of its parts.
TEST(RecordingPlan, CoversWhatReadsRowsThatComeBackInChunks) {
  const Fixture fixture("deepseek_v3");
  for (const char* schedule : {"blocking", "overlapped"}) {
    const Planned planned(fixture, 2, {.schedule = schedule, .expert_chunks = 2});
    EXPECT_TRUE(planned.recorded_kinds().contains(OpKind::unpermute));
    size_t wholes = 0, unpermuted = 0;
    for (const Arrival& arrival : planned.recordings.arrivals) {
      const Value& value = planned.step.graph.value(arrival.value);
      EXPECT_EQ(value.part_of, none);
      wholes += planned.step.graph.op(value.producer).kind == OpKind::join;
    }
    for (const Op& op : planned.step.graph.ops()) unpermuted += op.kind == OpKind::unpermute;
    EXPECT_EQ(wholes, unpermuted);
  }
}

// Per-rank dispatch arranges what arrived by operators that wait.
TEST(RecordingPlan, LeavesOutRowsThatAreMadeWithoutRoomForMore) {
  const Fixture fixture("deepseek_v3");
  const Planned planned(
      fixture, 2,
      {.schedule = "overlapped", .dispatch = DispatchForm::per_rank, .dtype = at::kBFloat16});
  EXPECT_FALSE(planned.recorded_kinds().contains(OpKind::arrange));
  EXPECT_FALSE(planned.recorded_kinds().contains(OpKind::experts));
}

// It would take its room from one pass to the other.
TEST(RecordingPlan, LeavesOutWhatTheBackwardPassReads) {
  const Fixture fixture("deepseek_v3");
  for (const RecomputeKind recompute : {RecomputeKind::none, RecomputeKind::all_and_dispatch}) {
    const Planned planned(fixture, 2,
                          {.schedule = "overlapped",
                           .dtype = at::kBFloat16,
                           .goal = StepGoal::gradients,
                           .recompute = recompute});
    const Graph& graph = planned.step.graph;
    for (const Arrival& arrival : planned.recordings.arrivals) {
      const bool forward = !is_backward(graph.op(graph.value(arrival.value).producer).kind);
      for (OpId reader : graph.consumers(arrival.value)) {
        EXPECT_FALSE(forward && is_backward(graph.op(reader).kind));
      }
    }
    if (recompute == RecomputeKind::none) {
      EXPECT_FALSE(planned.recorded_kinds().contains(OpKind::experts));
    }
  }
}

// A stretch says whose rows routing decides, and what arrives for it has a place.
TEST(RecordingPlan, KnowsWhatRoutingDecidesAndWhatArrives) {
  const Fixture fixture("deepseek_v3");
  for (StepForm form : forms()) {
    SCOPED_TRACE(form.schedule);
    form.dtype = at::kBFloat16;
    const Planned planned(fixture, 2, form);
    const Graph& graph = planned.step.graph;
    std::set<ValueId> arriving;
    for (size_t s = 0; s < planned.recordings.stretches.size(); ++s) {
      std::set<SymbolId> routed;
      for (const Step& step : planned.recordings.stretches[s]) {
        const Op& op = graph.op(step.op);
        for (const auto& values : {op.inputs, op.outputs}) {
          for (ValueId id : values) {
            const Value& value = graph.value(id);
            if (value.kind != ValueKind::activation) continue;
            for (const Dim& dim : value.shape) {
              if (!dim.exact() && is_routed(graph.symbol(dim.symbol).kind)) {
                routed.insert(dim.symbol);
              }
            }
            const Op& producer = graph.op(value.producer);
            const bool joined = producer.kind == OpKind::join;
            const OpId first = joined ? graph.value(producer.inputs.at(0)).producer : producer.id;
            if (graph.op(first).lane == Lane::communication) arriving.insert(id);
          }
        }
      }
      const std::vector<SymbolId>& said = planned.recordings.routed[s];
      EXPECT_EQ(std::set<SymbolId>(said.begin(), said.end()), routed);
    }
    std::set<ValueId> placed;
    for (const Arrival& arrival : planned.recordings.arrivals) placed.insert(arrival.value);
    EXPECT_EQ(placed, arriving);
    EXPECT_EQ(placed.size(), planned.recordings.arrivals.size());
    EXPECT_EQ(arriving.empty(), form.dispatch == DispatchForm::per_rank && form.expert_chunks > 1);
  }
}

TEST(RecordingPlan, LeavesOutARouterWhoseChoicesComeFromTheHost) {
  const Fixture fixture("deepseek_v3");
  const Planned planned(fixture, 2, {.schedule = "overlapped", .routing = RoutingMode::replay});
  EXPECT_FALSE(planned.recorded_kinds().contains(OpKind::router));
}

TEST(RecordingPlan, StretchesFollowTheLaneAndWaitOnlyAtTheirBeginning) {
  const Fixture fixture("deepseek_v3");
  for (const StepForm& form : forms()) {
    for (int ranks : {1, 2}) {
      SCOPED_TRACE(form.schedule + " on " + std::to_string(ranks));
      const Planned planned(fixture, ranks, form);
      std::vector<OpId> lane;
      std::set<OpId> awaited;
      for (const Step& step : planned.step.schedule.steps) {
        if (step.lane == Lane::compute) {
          lane.push_back(step.op);
        } else {
          awaited.insert(step.wait_for.begin(), step.wait_for.end());
        }
      }
      std::set<OpId> seen;
      int index = 0;
      for (const auto& stretch : planned.recordings.stretches) {
        ASSERT_FALSE(stretch.empty());
        const auto first = std::ranges::find(lane, stretch[0].op);
        for (size_t i = 0; i < stretch.size(); ++i) {
          EXPECT_EQ(*(first + i), stretch[i].op);
          EXPECT_TRUE(i == 0 || stretch[i].wait_for.empty());
          EXPECT_TRUE(i + 1 == stretch.size() || !awaited.contains(stretch[i].op));
          EXPECT_TRUE(seen.insert(stretch[i].op).second);
          EXPECT_EQ(planned.recordings.stretch_of[stretch[i].op], index);
        }
        ++index;
      }
    }
  }
}

// What another lane waits for must have its own mark behind it.
TEST(RecordingPlan, AStretchEndsWhereAnotherLaneWaitsForIt) {
  const Fixture fixture("deepseek_v3");
  Planned planned(fixture, 2, {.schedule = "overlapped"});
  const auto longest = std::ranges::max_element(planned.recordings.stretches, {},
                                                [](const auto& stretch) { return stretch.size(); });
  ASSERT_GT(longest->size(), 2u);
  const OpId middle = (*longest)[longest->size() / 2].op, after = longest->back().op;
  std::vector<Step> steps = planned.step.schedule.steps;
  std::ranges::find(steps.rbegin(), steps.rend(), Lane::communication, &Step::lane)->wait_for = {
      middle};
  const RecordingPlan cut = plan_recordings(planned.step.graph, planned.plans, steps);
  EXPECT_EQ(cut.stretches[cut.stretch_of[middle]].back().op, middle);
  EXPECT_NE(cut.stretch_of[after], cut.stretch_of[middle]);
}

// Its memory is another's only when the last collective that reads it is passed.
TEST(RecordingPlan, SaysHowLongCollectivesReadWhatStays) {
  const Fixture fixture("deepseek_v3");
  for (const StepForm& form : forms()) {
    SCOPED_TRACE(form.schedule);
    const Planned planned(fixture, 2, form);
    const Graph& graph = planned.step.graph;
    std::vector<OpId> lane;
    for (const Step& step : planned.step.schedule.steps) {
      if (step.lane == Lane::communication) lane.push_back(step.op);
    }
    int lent = 0;
    for (const Value& value : graph.values()) {
      const int until = planned.recordings.lent_until[value.id];
      if (!planned.recordings.stays[value.id]) {
        EXPECT_EQ(until, none);
        continue;
      }
      lent += until != none;
      for (OpId reader : graph.consumers(value.id)) {
        if (graph.op(reader).lane == Lane::compute) continue;
        ASSERT_NE(until, none) << value.name;
        const auto place = std::ranges::find(lane, reader) - lane.begin();
        EXPECT_LE(place, until) << value.name;
        EXPECT_EQ(planned.recordings.place_of[reader], place);
      }
      if (until != none) {
        EXPECT_EQ(std::ranges::count(graph.consumers(value.id), lane[until]), 1) << value.name;
      }
    }
    EXPECT_GT(lent, 0);
  }
}

// An all-reduce reads what a recorded projection makes.
TEST(RecordingPlan, LendsWhatCollectivesRead) {
  const Fixture fixture("deepseek_v3");
  const ModelConfig& model = fixture.config();
  const Graph graph = build_forward(
      model, Connectivity::preset("farskip", model.layers),
      {.form = ParallelForm::replicated_all_reduce, .ranks = 2, .tokens = 96, .sequences = 2});
  KernelTable kernels = step_kernels();
  kernels.add(OpKind::plan, {.kernel = [](const KernelContext&, Inputs, Outputs) {},
                             .bind = [](const KernelContext&, const Symbol&, Inputs,
                                        Inputs) { return int64_t{0}; }});
  const RecordingPlan plan =
      plan_recordings(graph, plan_ops(graph, kernels), blocking_schedule(graph).steps);
  for (const Op& op : graph.ops()) {
    if (op.kind == OpKind::output_projection) {
      EXPECT_NE(plan.stretch_of[op.id], none);
      EXPECT_NE(plan.lent_until[op.outputs[0]], none);
    }
    if (op.kind == OpKind::attention_core) {
      EXPECT_NE(plan.stretch_of[op.id], none);
      EXPECT_EQ(plan.lent_until[op.outputs[0]], none);
    }
    if (op.kind == OpKind::plan) {
      EXPECT_EQ(plan.stretch_of[op.id], none);
    }
  }
}

TEST(RecordingPlan, WhatStaysIsWholeAndLedByItsRows) {
  const Fixture fixture("deepseek_v3");
  for (const StepForm& form : forms()) {
    const Planned planned(fixture, 2, form);
    const Graph& graph = planned.step.graph;
    for (const Value& value : graph.values()) {
      if (!planned.recordings.stays[value.id]) continue;
      EXPECT_EQ(value.kind, ValueKind::activation);
      EXPECT_EQ(value.part_of, none);
      EXPECT_EQ(std::ranges::count(graph.outputs(), value.id), 0);
      for (size_t i = 1; i < value.shape.size(); ++i) {
        EXPECT_TRUE(value.shape[i].exact() || !is_routed(graph.symbol(value.shape[i].symbol).kind));
      }
      for (OpId op : graph.consumers(value.id)) EXPECT_NE(graph.op(op).kind, OpKind::join);
    }
  }
}

}  // namespace
}  // namespace farskip::testing
