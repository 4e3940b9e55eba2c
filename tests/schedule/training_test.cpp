#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <random>

#include "../graph/models.h"
#include "farskip/graph/cost.h"
#include "farskip/graph/differentiate.h"
#include "farskip/graph/recompute.h"
#include "farskip/graph/rewrite.h"
#include "farskip/graph/update.h"
#include "farskip/schedule/evaluate.h"
#include "farskip/schedule/memory.h"
#include "farskip/schedule/places.h"
#include "farskip/schedule/schedule.h"

namespace farskip {
namespace {

constexpr double megabyte = 1 << 20;

Graph backward(const char* model, int layers, const char* preset, int ranks, RecomputeKind kind,
               const RouterLosses& router_losses = {}) {
  StepSpec spec = testing::bf16_step(ranks, 4096, 2048);
  spec.end = StepEnd::loss;
  spec.router_losses = router_losses;
  const Graph graph = testing::forward(testing::moe_layers(model, layers), preset, spec);
  return recompute(differentiate(graph), kind);
}

// A training step of a random form.
Graph random_step(std::mt19937& random) {
  auto one_of = [&](auto... choices) {
    const std::array all = {choices...};
    return all[std::uniform_int_distribution<size_t>(0, all.size() - 1)(random)];
  };
  const auto kinds = recompute_kinds();
  const int ranks = one_of(1, 2, 8);
  Graph graph =
      backward(one_of("deepseek-v3", "qwen3-30b-a3b", "mixtral-8x7b"), one_of(2, 3, 4),
               one_of("standard", "farskip", "attention-only", "fresh-shared", "ladder", "depth-2"),
               ranks, kinds[std::uniform_int_distribution<size_t>(0, kinds.size() - 1)(random)],
               {.balance = one_of(0.0, 0.01), .z = one_of(0.0, 0.001)});
  if (one_of(false, true)) graph = two_batch(graph);
  if (one_of(false, true) && ranks < 8) graph = expert_chunks(graph, 2);
  graph = pieces(graph, one_of(1, 3));
  if (one_of(false, true)) return graph;
  return add_update(graph, plan_buckets(graph, 64 * megabyte), ranks * one_of(1, 2));
}

// Over five decades, some of them nothing at all.
Durations random_durations(const Graph& graph, std::mt19937& random) {
  Durations durations(graph.ops().size());
  for (const Op& op : graph.ops()) {
    const double draw = std::uniform_real_distribution(0.0, 1.0)(random);
    durations[op.id] = op.kind == OpKind::join || draw < 0.05 ? 0 : std::pow(10, 5 * draw - 6);
  }
  return durations;
}

TEST(TrainingSchedules, AlwaysValidNeverSlowerNeverBelowTheBound) {
  std::mt19937 random(17);
  for (int round = 0; round < 120; ++round) {
    const Graph graph = random_step(random);
    SCOPED_TRACE(std::to_string(round) + ": " + graph.description());
    const Durations durations = random_durations(graph, random);
    const Contention contention = {1 + 0.3 * (round % 3), 1 + 0.1 * (round % 2)};
    const double bound = lower_bound(graph, durations).seconds();
    double serial = 0;
    for (double seconds : durations) serial += seconds;
    double fastest = serial;
    for (const char* name : {"blocking", "released"}) {
      const Schedule schedule = make_schedule(name, graph, durations, contention);
      ASSERT_NO_THROW(verify(graph, schedule));
      const double step = evaluate(graph, schedule, durations, contention).step;
      EXPECT_GE(step, bound * (1 - 1e-9)) << name;
      fastest = std::min(fastest, step);
    }
    const Schedule overlapped = overlapped_schedule(graph, durations, contention);
    ASSERT_NO_THROW(verify(graph, overlapped));
    const double step = evaluate(graph, overlapped, durations, contention).step;
    EXPECT_LE(step, fastest * (1 + 1e-9));
    EXPECT_GE(step, bound * (1 - 1e-9));
  }
}

// What a lane had launched last tells that all before it is done: the order of ids once hid some.
TEST(TrainingSchedules, StepsWaitForTheLastOpAlone) {
  std::mt19937 random(23);
  for (int round = 0; round < 60; ++round) {
    const Graph graph = random_step(random);
    SCOPED_TRACE(std::to_string(round) + ": " + graph.description());
    const Durations durations = random_durations(graph, random);
    for (const char* name : {"blocking", "released", "overlapped"}) {
      for (const Step& step : make_schedule(name, graph, durations).steps) {
        EXPECT_LE(step.wait_for.size(), 1u) << name << ", op " << step.op;
      }
    }
  }
}

// Durations that are FLOPs over one rate, and bytes on the wire over another.
Durations plain_durations(const Graph& graph) {
  Durations durations;
  for (const Op& op : graph.ops()) {
    const OpCost cost = cost_of(graph, op);
    durations.push_back(cost.flops / 700e12 + cost.bytes_moved / 4e12 + cost.bytes_sent / 277e9);
  }
  return durations;
}

// A schedule must not spend what recomputation saves: weight gradients that are put off hold all
// that they read.
TEST(TrainingSchedules, OverlappedHoldsLittleMoreThanBlocking) {
  for (const char* preset : {"standard", "farskip"}) {
    for (int cuts : {1, 4}) {
      double before = 0;
      for (RecomputeKind kind : {RecomputeKind::none, RecomputeKind::attention, RecomputeKind::all,
                                 RecomputeKind::all_and_dispatch}) {
        SCOPED_TRACE(std::string(preset) + ", " + to_string(kind) + ", " + std::to_string(cuts));
        const Graph graph =
            pieces(expert_chunks(backward("deepseek-v3", 12, preset, 8, kind), cuts), cuts);
        const Durations durations = plain_durations(graph);
        const double least = peak_activation_bytes(graph, blocking_schedule(graph));
        const double peak = peak_activation_bytes(graph, overlapped_schedule(graph, durations));
        EXPECT_LE(peak, 1.1 * least);
        if (before > 0) {
          EXPECT_LT(peak, 0.85 * before);
        }
        before = peak;
      }
    }
  }
}

TEST(TrainingSchedules, RouterLossesDelayNothing) {
  for (const char* preset : {"standard", "farskip"}) {
    auto step = [&](const RouterLosses& losses) {
      const Graph graph = backward("deepseek-v3", 4, preset, 8, RecomputeKind::none, losses);
      Durations durations = plain_durations(graph);
      for (const Op& op : graph.ops()) {
        if (op.kind == OpKind::all_reduce) durations[op.id] += 50e-6;
      }
      return evaluate(graph, overlapped_schedule(graph, durations), durations, {}).step;
    };
    const double without = step({});
    EXPECT_LE(step({.balance = 0.01, .z = 0.001}), 1.002 * without) << preset;
  }
}

TEST(TrainingSchedules, PlacesGoDownTheLayersBehindTheLoss) {
  const Graph graph = two_batch(backward("deepseek-v3", 3, "farskip", 8, RecomputeKind::all));
  const std::vector<int> places = places_along(graph);
  const OpId loss = last_forward_op(graph);
  EXPECT_EQ(graph.op(loss).kind, OpKind::loss);
  EXPECT_EQ(graph.op(loss).attributes.micro_batch, 1);
  for (const Op& op : graph.ops()) {
    const int layer = op.attributes.layer;
    if (layer > 0) {
      EXPECT_EQ(places[op.id], op.id <= loss ? layer : 8 - layer);
    }
  }
  EXPECT_EQ(places.front(), 0);
  EXPECT_EQ(places[loss], 3);
  EXPECT_EQ(places.back(), 7);
}

}  // namespace
}  // namespace farskip
