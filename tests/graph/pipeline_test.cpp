#include "farskip/graph/pipeline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/graph/differentiate.h"
#include "farskip/graph/recompute.h"
#include "farskip/graph/rewrite.h"
#include "farskip/graph/step_outputs.h"
#include "farskip/graph/update.h"
#include "models.h"

namespace farskip {
namespace {

constexpr const char* presets[] = {"standard", "farskip",      "attention-only", "mlp-only",
                                   "last-2",   "fresh-shared", "ladder",         "depth-2"};

Graph step_of(const char* preset, int layers, StepSpec spec = testing::bf16_step(8, 4096, 2048)) {
  spec.end = StepEnd::loss;
  return differentiate(testing::forward(testing::moe_layers("deepseek-v3", layers), preset, spec));
}

std::vector<Graph> cut(const Graph& step, int layers, int stages, int micro_batches = 1) {
  return pipeline_stages(step, even_stages(layers, stages), micro_batches);
}

std::vector<Op> ops_of(const Graph& graph, OpKind kind) {
  std::vector<Op> ops;
  std::ranges::copy_if(graph.ops(), std::back_inserter(ops),
                       [&](const Op& op) { return op.kind == kind; });
  return ops;
}

// Everything that must run before an op, itself included.
std::set<OpId> needed_by(const Graph& graph, OpId op) {
  std::set<OpId> needed = {op};
  std::vector<OpId> open = {op};
  while (!open.empty()) {
    const OpId next = open.back();
    open.pop_back();
    for (OpId before : graph.predecessors(next)) {
      if (needed.insert(before).second) open.push_back(before);
    }
  }
  return needed;
}

TEST(PipelineStages, AreEvenRunsOfLayers) {
  EXPECT_EQ(even_stages(5, 2), (std::vector{0, 0, 1, 1, 1}));
  EXPECT_EQ(even_stages(4, 4), (std::vector{0, 1, 2, 3}));
  EXPECT_EQ(even_stages(3, 1), (std::vector{0, 0, 0}));
  EXPECT_THROW(even_stages(3, 4), UsageError);
  EXPECT_THROW(even_stages(3, 0), UsageError);
}

TEST(PipelinePhases, AreOneForwardOneBackward) {
  using Phases = std::vector<PipelinePhase>;
  EXPECT_EQ(pipeline_phases(0, 2, 3, true),
            (Phases{{0, false}, {1, false}, {0, true}, {2, false}, {1, true}, {2, true}}));
  EXPECT_EQ(pipeline_phases(1, 2, 2, true), (Phases{{0, false}, {0, true}, {1, false}, {1, true}}));
  EXPECT_EQ(pipeline_phases(0, 4, 2, true), (Phases{{0, false}, {1, false}, {0, true}, {1, true}}));
  EXPECT_EQ(pipeline_phases(0, 4, 2, false), (Phases{{0, false}, {1, false}}));
}

// docs/pipeline.md has the table.
TEST(PipelineCut, SendsTheLiveValuesOfEachConnectivity) {
  struct Live {
    const char* preset;
    size_t values, gradients;
  };
  for (const auto& [preset, values, gradients] :
       {Live{"standard", 1, 1}, Live{"farskip", 2, 2}, Live{"attention-only", 2, 2},
        Live{"mlp-only", 1, 1}, Live{"fresh-shared", 2, 2}, Live{"ladder", 2, 2},
        Live{"depth-2", 4, 5}}) {
    SCOPED_TRACE(preset);
    const std::vector<Graph> stages = cut(step_of(preset, 8), 8, 2);
    EXPECT_EQ(ops_of(stages[0], OpKind::send).size(), values);
    EXPECT_EQ(ops_of(stages[1], OpKind::send).size(), gradients);
  }
}

TEST(PipelineCut, SendsThePartialStreamBeforeTheRoutedOutput) {
  for (const char* preset : {"farskip", "attention-only", "fresh-shared", "ladder", "depth-2"}) {
    SCOPED_TRACE(preset);
    const Graph first = cut(step_of(preset, 4), 4, 2)[0];
    const std::vector<Op> sends = ops_of(first, OpKind::send);
    auto waits_for_last_combine = [&](const Op& send) {
      return std::ranges::any_of(needed_by(first, send.id), [&](OpId id) {
        return first.op(id).kind == OpKind::combine && first.op(id).attributes.layer == 2;
      });
    };
    EXPECT_FALSE(waits_for_last_combine(sends.front()));
    EXPECT_TRUE(waits_for_last_combine(sends.back()));
  }
}

// What an op is, wherever it runs.
using Kind = std::tuple<OpKind, int, int, int, bool>;
std::multiset<Kind> kinds_of(const Graph& graph) {
  std::multiset<Kind> kinds;
  for (const Op& op : graph.ops()) {
    const Attributes& a = op.attributes;
    const bool moves = op.kind == OpKind::send || op.kind == OpKind::receive ||
                       op.kind == OpKind::rope_tables || op.kind == OpKind::sum;
    if (!moves) kinds.insert({op.kind, a.layer, a.chunk, a.piece, a.again});
  }
  return kinds;
}

TEST(PipelineCut, KeepsEveryOpOnce) {
  Graph step = pieces(expert_chunks(recompute(step_of("farskip", 4), RecomputeKind::all), 2), 2);
  const std::multiset<Kind> whole = kinds_of(step);
  for (int stages : {1, 2, 4}) {
    std::multiset<Kind> parts;
    for (const Graph& stage : cut(step, 4, stages)) parts.merge(kinds_of(stage));
    EXPECT_EQ(parts, whole);
  }
}

struct Message {
  int number;
  std::vector<Dim> shape;
  DType dtype;
  bool operator==(const Message&) const = default;
};

std::vector<Message> messages(const Graph& graph, OpKind kind, int peer) {
  std::vector<Message> found;
  for (const Op& op : ops_of(graph, kind)) {
    const Value& value = graph.value(kind == OpKind::send ? op.inputs.at(0) : op.outputs.at(0));
    if (op.attributes.peer == peer) {
      found.push_back({op.attributes.message, value.shape, value.dtype});
    }
  }
  return found;
}

TEST(PipelineCut, BothEndsAgreeOnEveryMessage) {
  for (const char* preset : presets) {
    for (int stages : {2, 4}) {
      SCOPED_TRACE(std::string(preset) + ", " + std::to_string(stages));
      const std::vector<Graph> graphs = cut(step_of(preset, 4), 4, stages, 3);
      for (int from = 0; from < stages; ++from) {
        for (int to : {from - 1, from + 1}) {
          if (to < 0 || to >= stages) continue;
          const std::vector<Message> sent = messages(graphs[from], OpKind::send, to);
          EXPECT_EQ(sent, messages(graphs[to], OpKind::receive, from));
          EXPECT_FALSE(sent.empty());
        }
      }
    }
  }
}

TEST(PipelineCut, OutputsAreWhereTheyAreMade) {
  StepSpec spec = testing::bf16_step(8, 4096, 2048);
  spec.router_losses = {.balance = 0.01};
  const Graph step = step_of("farskip", 4, spec);
  auto outputs = [](const Graph& graph) {
    std::vector<std::string> names;
    for (ValueId id : graph.outputs()) names.push_back(graph.value(id).name);
    return names;
  };
  using Names = std::vector<std::string>;
  const std::vector<Graph> stages = cut(step, 4, 4, 2);
  using namespace step_outputs;
  EXPECT_EQ(outputs(stages[0]), (Names{expert_loads, step_outputs::router_losses, expert_loads,
                                       step_outputs::router_losses}));
  EXPECT_EQ(outputs(stages[1]), (Names{expert_loads, expert_loads}));
  EXPECT_EQ(outputs(stages[3]), (Names{loss, expert_loads, loss, expert_loads}));
  for (const Graph& stage : stages) {
    for (const Op& op : ops_of(stage, OpKind::router_loss)) EXPECT_EQ(op.attributes.router, 0);
  }
}

// Nothing of a phase starts before what the phase before it ended with, but for weight gradients.
TEST(PipelineOrder, PhasesFollowEachOther) {
  const Graph first = cut(step_of("farskip", 4), 4, 2, 3)[0];
  const std::vector<Op> embeddings = ops_of(first, OpKind::embedding),
                        receives = ops_of(first, OpKind::receive);
  ASSERT_EQ(embeddings.size(), 3u);
  EXPECT_TRUE(needed_by(first, embeddings[1].id).count(embeddings[0].id));
  // F0 F1 B0 F2 B1 B2: the third forward part comes behind the first backward one.
  EXPECT_TRUE(needed_by(first, embeddings[2].id).count(receives[0].id));
  EXPECT_FALSE(needed_by(first, embeddings[1].id).count(receives[0].id));
  EXPECT_TRUE(needed_by(first, receives[0].id).count(embeddings[1].id));
}

// Stages wait for each other in the sum of squares.
TEST(PipelineOrder, TheNormOfGradientsIsSummedBehindAllMessages) {
  StepSpec spec = testing::bf16_step(8, 4096, 2048);
  spec.router_losses = {.z = 0.01};
  for (const Graph& stage : cut(step_of("farskip", 4, spec), 4, 2, 2)) {
    const Graph update = add_update(stage, plan_buckets(stage, 1e6), 8, 2);
    const std::vector<Op> reductions = ops_of(update, OpKind::all_reduce);
    const auto between = std::ranges::find_if(
        reductions, [](const Op& op) { return is_between_stages(op.attributes); });
    ASSERT_NE(between, reductions.end());
    const std::set<OpId> before = needed_by(update, between->id);
    for (OpKind kind : {OpKind::send, OpKind::receive}) {
      for (const Op& op : ops_of(update, kind)) EXPECT_TRUE(before.count(op.id)) << op.id;
    }
  }
}

TEST(PipelineCut, RefusesWhatItCanNotCut) {
  EXPECT_THROW(cut(two_batch(step_of("farskip", 4)), 4, 2), GraphError);
  ModelConfig tied = testing::moe_layers("deepseek-v3", 4);
  tied.tied_embeddings = true;
  StepSpec spec = testing::bf16_step(8, 4096, 2048);
  spec.end = StepEnd::loss;
  const Graph step = differentiate(testing::forward(tied, "farskip", spec));
  EXPECT_THROW(cut(step, 4, 2), UnsupportedError);
  EXPECT_EQ(cut(step, 4, 1).size(), 1u);
}

}  // namespace
}  // namespace farskip
