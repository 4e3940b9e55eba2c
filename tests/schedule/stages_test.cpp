#include "farskip/schedule/stages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "../graph/models.h"
#include "farskip/base/error.h"
#include "farskip/graph/differentiate.h"
#include "farskip/graph/pipeline.h"
#include "farskip/graph/recompute.h"
#include "farskip/graph/rewrite.h"
#include "farskip/graph/update.h"
#include "farskip/schedule/memory.h"

namespace farskip {
namespace {

struct Form {
  const char* preset = "farskip";
  int layers = 4, stages = 2, micro_batches = 3, chunks = 1;
  RecomputeKind recomputed = RecomputeKind::none;
  bool update = true;
};

std::vector<Graph> stages_of(const Form& form) {
  StepSpec spec = testing::bf16_step(4, 4096, 2048);
  spec.end = StepEnd::loss;
  spec.router_losses = {.balance = 0.01, .z = 0.001};
  Graph step = recompute(differentiate(testing::forward(
                             testing::moe_layers("deepseek-v3", form.layers), form.preset, spec)),
                         form.recomputed);
  step = pieces(expert_chunks(step, form.chunks), form.chunks);
  std::vector<Graph> graphs =
      pipeline_stages(step, even_stages(form.layers, form.stages), form.micro_batches);
  if (!form.update) return graphs;
  for (Graph& graph : graphs) {
    graph = add_update(graph, plan_buckets(graph, 64 << 20), 8, form.stages);
  }
  return graphs;
}

std::vector<ScheduledStage> pairs(const std::vector<Graph>& graphs,
                                  const std::vector<Schedule>& schedules) {
  std::vector<ScheduledStage> stages;
  for (size_t i = 0; i < graphs.size(); ++i) stages.push_back({graphs[i], schedules[i]});
  return stages;
}

std::vector<Schedule> schedules_of(const std::vector<Graph>& graphs, const std::string& name,
                                   const std::vector<Durations>& durations) {
  std::vector<Schedule> schedules;
  for (size_t i = 0; i < graphs.size(); ++i) {
    schedules.push_back(make_schedule(name, graphs[i], durations[i]));
    verify(graphs[i], schedules.back());
  }
  return schedules;
}

// Over five decades; nothing for some, and for joins.
Durations random_durations(const Graph& graph, std::mt19937& random) {
  Durations durations;
  for (const Op& op : graph.ops()) {
    const double draw = std::uniform_real_distribution(0.0, 1.0)(random);
    durations.push_back(op.kind == OpKind::join || draw < 0.05 ? 0 : std::pow(10, 5 * draw - 6));
  }
  return durations;
}

// Whatever each stage takes its ops to last, and whatever they then do last.
TEST(Stages, NeverWaitInACircle) {
  std::mt19937 random(3);
  auto one_of = [&](auto... choices) {
    const std::array all = {choices...};
    return all[std::uniform_int_distribution<size_t>(0, all.size() - 1)(random)];
  };
  for (int round = 0; round < 40; ++round) {
    const Form form{.preset = one_of("standard", "farskip", "fresh-shared", "ladder", "depth-2"),
                    .layers = one_of(4, 5),
                    .stages = one_of(2, 3, 4),
                    .micro_batches = one_of(1, 2, 5),
                    .chunks = one_of(1, 2),
                    .recomputed = one_of(RecomputeKind::none, RecomputeKind::all),
                    .update = one_of(false, true)};
    SCOPED_TRACE(std::string(form.preset) + ", " + std::to_string(form.stages) + " stages, " +
                 std::to_string(form.micro_batches) + " micro-batches");
    const std::vector<Graph> graphs = stages_of(form);
    std::vector<Durations> planned, real;
    for (const Graph& graph : graphs) {
      planned.push_back(random_durations(graph, random));
      real.push_back(random_durations(graph, random));
    }
    const std::vector<Schedule> schedules =
        schedules_of(graphs, one_of("blocking", "released", "overlapped"), planned);
    const std::vector<ScheduledStage> stages = pairs(graphs, schedules);
    EXPECT_NO_THROW(verify_stages(stages));
    const std::vector<OpTimes> times = evaluate_stages(stages, real);
    for (size_t s = 0; s < stages.size(); ++s) {
      for (double ended : times[s].ended) ASSERT_TRUE(std::isfinite(ended));
    }
  }
}

TEST(Stages, SchedulesThatDoNotEndTogetherAreFound) {
  const std::vector<Graph> graphs = stages_of({.micro_batches = 2, .update = false});
  std::vector<Durations> durations;
  for (const Graph& graph : graphs) durations.emplace_back(graph.ops().size(), 1.0);
  const std::vector<Schedule> schedules = schedules_of(graphs, "blocking", durations);
  verify_stages(pairs(graphs, schedules));
  // A message is lost, one waits for it; two change places.
  for (OpKind kind : {OpKind::send, OpKind::receive}) {
    std::vector<Schedule> broken = schedules;
    auto of_kind = [&](const Step& step) { return graphs[0].op(step.op).kind == kind; };
    const auto first = std::ranges::find_if(broken[0].steps, of_kind);
    broken[0].steps.erase(first);
    EXPECT_THROW(verify_stages(pairs(graphs, broken)), ScheduleError);
    broken = schedules;
    const auto one = std::ranges::find_if(broken[0].steps, of_kind);
    const auto other = std::find_if(one + 1, broken[0].steps.end(), of_kind);
    std::swap(one->op, other->op);
    EXPECT_THROW(verify_stages(pairs(graphs, broken)), ScheduleError);
  }
}

// Every op of compute takes a second, messages nothing: what a stage waits for is the pipeline's
// filling and draining alone.
TEST(Stages, WaitForAsLongAsTheBubbleOf1F1B) {
  for (const auto& [stages, micro_batches] : {std::pair{2, 4}, {4, 8}}) {
    const std::vector<Graph> graphs =
        stages_of({.layers = 8, .stages = stages, .micro_batches = micro_batches, .update = false});
    std::vector<Durations> durations;
    double longest = 0;
    for (const Graph& graph : graphs) {
      durations.emplace_back();
      double sum = 0;
      for (const Op& op : graph.ops()) {
        durations.back().push_back(op.lane == Lane::compute && op.attributes.layer > 0 ? 1 : 0);
        sum += durations.back().back();
      }
      longest = std::max(longest, sum);
    }
    const std::vector<Schedule> schedules = schedules_of(graphs, "overlapped", durations);
    double step = 0;
    for (const OpTimes& times : evaluate_stages(pairs(graphs, schedules), durations)) {
      step = std::max(step, times.step);
    }
    const double bubble = static_cast<double>(micro_batches + stages - 1) / micro_batches;
    EXPECT_GT(step / longest, 1 + 0.5 * (bubble - 1));
    EXPECT_LT(step / longest, 1 + 1.1 * (bubble - 1));
  }
}

// As many micro-batches are under way as there are stages to come, whatever their number.
TEST(Stages, HoldTheActivationsOf1F1B) {
  auto peak = [](int micro_batches, size_t stage) {
    const std::vector<Graph> graphs =
        stages_of({.stages = 2, .micro_batches = micro_batches, .update = false});
    const Durations durations(graphs[stage].ops().size(), 1e-3);
    return peak_activation_bytes(graphs[stage],
                                 make_schedule("overlapped", graphs[stage], durations));
  };
  EXPECT_LT(peak(8, 0), 1.02 * peak(4, 0));
  EXPECT_LT(peak(8, 0), 1.5 * peak(2, 0));  // weight gradients of one more
  EXPECT_LT(peak(8, 1), 1.5 * peak(1, 1));
  EXPECT_LT(peak(8, 1), 0.8 * peak(8, 0));
}

}  // namespace
}  // namespace farskip
