#include "farskip/graph/rewrite.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/graph/cost.h"
#include "models.h"

namespace farskip {
namespace {

using testing::bf16_step;
using testing::forward;
using testing::moe_layers;

int count(const Graph& graph, OpKind kind) {
  int found = 0;
  for (const Op& op : graph.ops()) found += op.kind == kind;
  return found;
}

Graph example(const char* preset = "farskip", int layers = 3) {
  return forward(moe_layers("deepseek-v3", layers), preset, bf16_step(8, 4096, 2048));
}

TEST(Rewrite, ChunksSplitTheRoutedPathAndKeepBits) {
  const Graph cut = expert_chunks(example(), 4);
  EXPECT_TRUE(cut.keeps_bits());
  EXPECT_EQ(count(cut, OpKind::dispatch), 12);
  EXPECT_EQ(count(cut, OpKind::experts), 12);
  EXPECT_EQ(count(cut, OpKind::combine), 12);
  EXPECT_EQ(count(cut, OpKind::counts), 3);
  EXPECT_EQ(count(cut, OpKind::unpermute), 3);
}

// A per-rank row travels with the first chunk that needs it and returns with the last, so a chunk's
// experts and sums read what came and was computed before.
TEST(Rewrite, PerRankChunksReadTheChunksBeforeThem) {
  StepSpec spec = bf16_step(8, 4096, 2048);
  spec.dispatch = DispatchForm::per_rank;
  const Graph cut = expert_chunks(forward(moe_layers("deepseek-v3", 2), "farskip", spec), 4);
  EXPECT_TRUE(cut.keeps_bits());
  std::map<OpKind, std::vector<double>> rows;
  for (const Op& op : cut.ops()) {
    const size_t so_far = op.attributes.chunk + 1;
    if (op.kind == OpKind::arrange) {
      EXPECT_EQ(op.inputs.size(), 1 + so_far);
    }
    if (op.kind == OpKind::weigh) {
      EXPECT_EQ(op.inputs.size(), 2 + so_far);
    }
    if (op.kind == OpKind::plan) {
      EXPECT_EQ(cut.value(op.outputs[2]).shape[1].size, 3 * 4);
    }
    if (op.attributes.layer == 1) {
      rows[op.kind].push_back(cut.expected(cut.value(op.outputs[0]).shape[0]));
    }
  }
  EXPECT_EQ(rows[OpKind::dispatch].size(), 4u);
  for (size_t c = 1; c < 4; ++c) {
    EXPECT_LT(rows[OpKind::dispatch][c], rows[OpKind::dispatch][c - 1]);
    EXPECT_GT(rows[OpKind::combine][c], rows[OpKind::combine][c - 1]);
    EXPECT_DOUBLE_EQ(rows[OpKind::experts][c], rows[OpKind::experts][0]);
  }
}

TEST(Rewrite, PiecesCutLargeOpsAndJoinThem) {
  const Graph whole = example();
  const Graph cut = pieces(whole, 4);
  EXPECT_TRUE(cut.keeps_bits());
  EXPECT_EQ(count(cut, OpKind::attention_core), 4 * count(whole, OpKind::attention_core));
  EXPECT_EQ(count(cut, OpKind::shared_experts), 12);
  EXPECT_EQ(count(cut, OpKind::dispatch), count(whole, OpKind::dispatch));
}

TEST(Rewrite, TwoBatchDoublesEveryOpWithHalfTheRows) {
  const Graph whole = example(), both = two_batch(whole);
  EXPECT_FALSE(both.keeps_bits());
  EXPECT_EQ(both.ops().size(), 2 * whole.ops().size());
  EXPECT_EQ(both.outputs().size(), 2u);
  EXPECT_DOUBLE_EQ(both.expected_elements(both.outputs()[0]) * 2,
                   whole.expected_elements(whole.outputs()[0]));
  // The two share no activations: nothing of one is ever needed by the other.
  for (const Op& op : both.ops()) {
    for (OpId before : both.predecessors(op.id)) {
      EXPECT_EQ(both.op(before).attributes.micro_batch, op.attributes.micro_batch);
    }
  }
}

TEST(Rewrite, RewritesCompose) {
  const Graph all = pieces(expert_chunks(two_batch(example()), 2), 3);
  EXPECT_EQ(count(all, OpKind::dispatch), 3 * 2 * 2);
  EXPECT_EQ(count(all, OpKind::attention_core), 3 * 2 * 3);
  EXPECT_FALSE(all.keeps_bits());
}

TEST(Rewrite, MergesTheReductionsThatFarskipAllows) {
  auto reductions = [](const char* preset) {
    StepSpec spec = bf16_step(8, 4096, 2048);
    spec.form = ParallelForm::replicated_all_reduce;
    const Graph graph = forward(moe_layers("deepseek-v3", 4), preset, spec);
    const Graph merged = merge_reductions(graph);
    EXPECT_EQ(count(graph, OpKind::all_reduce), 12) << preset;
    EXPECT_FALSE(merged.keeps_bits());
    return count(merged, OpKind::all_reduce);
  };
  // Attention with shared experts in each layer; the last layer has no reader between its three.
  EXPECT_EQ(reductions("farskip"), 4 * 2 - 1);
  // fresh-shared reads attention alone: only the last layer's shared and routed output merge,
  // and shared with routed ones nowhere before, since attention reads between them.
  EXPECT_EQ(reductions("fresh-shared"), 4 * 3 - 1);
  // standard: shared and routed outputs are always read together.
  EXPECT_EQ(reductions("standard"), 4 * 2);
}

TEST(Rewrite, FuseMakesOneOpOfASumAndItsNorm) {
  for (const char* preset : {"standard", "farskip", "fresh-shared"}) {
    const Graph whole = pieces(expert_chunks(example(preset), 2), 2), fused = fuse(whole);
    EXPECT_TRUE(fused.keeps_bits());
    EXPECT_EQ(fused.description(), whole.description());
    const int both = count(fused, OpKind::sum_norm);
    EXPECT_GT(both, 0) << preset;
    EXPECT_EQ(count(whole, OpKind::sum), count(fused, OpKind::sum) + both);
    EXPECT_EQ(count(whole, OpKind::norm), count(fused, OpKind::norm) + both);
    EXPECT_EQ(fused.ops().size() + both, whole.ops().size());
    EXPECT_DOUBLE_EQ(total_cost(fused).flops, total_cost(whole).flops);
    EXPECT_LT(total_cost(fused).bytes_moved, total_cost(whole).bytes_moved);
    for (const Op& op : fused.ops()) {
      if (op.kind != OpKind::sum_norm) continue;
      EXPECT_GE(op.inputs.size(), 2u);
      // A sum that nobody else reads is not stored.
      for (ValueId made : op.outputs) EXPECT_FALSE(fused.consumers(made).empty());
    }
  }
}

TEST(Rewrite, FuseLetsTheExpertsOfOneRankGatherTheirRows) {
  const auto fused = [](int ranks) {
    return fuse(forward(moe_layers("qwen3-30b-a3b", 3), "standard", bf16_step(ranks, 1024, 512)));
  };
  EXPECT_EQ(count(fused(1), OpKind::permute), 0);
  EXPECT_EQ(count(fused(8), OpKind::permute), 3);
  for (const auto& [ranks, inputs] : {std::pair{1, 5u}, {8, 4u}}) {
    const Graph graph = fused(ranks);
    for (const Op& op : graph.ops()) {
      if (op.kind != OpKind::experts) continue;
      EXPECT_EQ(op.inputs.size(), inputs);
    }
  }
}

// Whatever reads what: nothing is lost, and what is multiplied stays what it was.
TEST(Rewrite, FuseAppliesToEveryModelAndConnectivity) {
  for (const BuiltinModel& model : builtin_models()) {
    ModelConfig cut = load_model(std::string(model.name));
    cut.layers.resize(std::min<size_t>(cut.layers.size(), 4));
    if (!cut.attention.window.empty()) cut.attention.window.resize(cut.layers.size());
    for (const std::string_view preset : connectivity_presets()) {
      for (const int ranks : {1, 8}) {
        SCOPED_TRACE(std::string(model.name) + ", " + std::string(preset));
        StepSpec spec = bf16_step(ranks, 1024, 512);
        if (ranks > 1 && preset == "standard") spec.form = ParallelForm::replicated_all_reduce;
        const Graph whole = forward(cut, std::string(preset).c_str(), spec), fused = fuse(whole);
        EXPECT_DOUBLE_EQ(total_cost(fused).flops, total_cost(whole).flops);
        EXPECT_DOUBLE_EQ(total_cost(fused).bytes_sent, total_cost(whole).bytes_sent);
        const int both = count(fused, OpKind::sum_norm);
        EXPECT_EQ(count(whole, OpKind::sum), count(fused, OpKind::sum) + both);
        EXPECT_EQ(count(whole, OpKind::norm), count(fused, OpKind::norm) + both);
        EXPECT_EQ(fused.outputs().size(), whole.outputs().size());
      }
    }
  }
}

TEST(Rewrite, FusedGraphsHaveNothingLeftToFuse) {
  const Graph fused = fuse(example());
  EXPECT_EQ(fuse(fused).ops().size(), fused.ops().size());
}

TEST(Rewrite, RefusesWhatDoesNotApply) {
  const Graph graph = example();
  EXPECT_THROW(expert_chunks(graph, 33), GraphError);
  EXPECT_THROW(expert_chunks(graph, 0), GraphError);
  EXPECT_THROW(expert_chunks(expert_chunks(graph, 2), 2), GraphError);
  EXPECT_THROW(pieces(graph, 0), GraphError);
  EXPECT_THROW(pieces(pieces(graph, 2), 2), GraphError);
  EXPECT_THROW(two_batch(two_batch(graph)), GraphError);
}

TEST(Rewrite, ChunksOfASingleRankAreTheGraphItself) {
  const Graph graph = forward(moe_layers("deepseek-v3", 3), "farskip", bf16_step(1, 1024, 512));
  EXPECT_EQ(expert_chunks(graph, 4).hash(), graph.hash());
  EXPECT_THROW(expert_chunks(graph, 257), GraphError);
}

TEST(Rewrite, OfOneIsTheGraphItself) {
  const Graph graph = example();
  EXPECT_EQ(expert_chunks(graph, 1).hash(), graph.hash());
  EXPECT_EQ(pieces(graph, 1).hash(), graph.hash());
}

}  // namespace
}  // namespace farskip
