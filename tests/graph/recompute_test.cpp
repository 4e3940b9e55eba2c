#include "farskip/graph/recompute.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/graph/cost.h"
#include "farskip/graph/differentiate.h"
#include "farskip/graph/rewrite.h"
#include "models.h"

namespace farskip {
namespace {

using testing::bf16_step;
using testing::forward;
using testing::moe_layers;

constexpr int layers = 3;

Graph backward(const char* model, const char* preset, StepSpec spec, int count = layers) {
  spec.end = StepEnd::loss;
  return differentiate(forward(moe_layers(model, count), preset, spec));
}

Graph example(const char* preset = "farskip", int ranks = 8) {
  return backward("deepseek-v3", preset, bf16_step(ranks, 4096, 2048));
}

// Ops that compute again, by kind, of every layer.
std::map<OpKind, int> again(const Graph& graph) {
  std::map<OpKind, int> found;
  for (const Op& op : graph.ops()) found[op.kind] += op.attributes.again;
  std::erase_if(found, [](const auto& entry) { return entry.second == 0; });
  return found;
}

std::map<OpKind, int> each(int count, std::initializer_list<OpKind> kinds) {
  std::map<OpKind, int> expected;
  for (OpKind kind : kinds) expected[kind] = count;
  return expected;
}

TEST(Recompute, RepeatsWhatItsKindSaysAndNothingElse) {
  const auto attention = {OpKind::norm, OpKind::attention_prepare, OpKind::attention_core};
  const auto experts = {OpKind::norm, OpKind::experts_products, OpKind::mlp_products};
  std::map<OpKind, int> all = each(layers, attention);
  all.merge(each(layers, experts));
  all[OpKind::norm] = 2 * layers;
  EXPECT_EQ(again(recompute(example(), RecomputeKind::attention)), each(layers, attention));
  EXPECT_EQ(again(recompute(example(), RecomputeKind::experts)), each(layers, experts));
  EXPECT_EQ(again(recompute(example(), RecomputeKind::all)), all);
  all.merge(each(layers, {OpKind::permute, OpKind::dispatch}));
  EXPECT_EQ(again(recompute(example(), RecomputeKind::all_and_dispatch)), all);
}

// There rows go nowhere, and what the routing weights' gradient reads is the experts' own output.
TEST(Recompute, ASingleRankComputesItsExpertsAgainWhole) {
  EXPECT_EQ(again(recompute(example("farskip", 1), RecomputeKind::experts)),
            each(layers, {OpKind::norm, OpKind::permute, OpKind::experts, OpKind::mlp_products}));
}

TEST(Recompute, RowsThatCameInFp8AreKeptAsTheyCame) {
  StepSpec spec = bf16_step(8, 4096, 2048);
  spec.wire = DType::float8_e4m3;
  const Graph graph = recompute(backward("deepseek-v3", "farskip", spec), RecomputeKind::experts);
  EXPECT_EQ(again(graph)[OpKind::arrange], layers);
  EXPECT_EQ(again(graph).count(OpKind::dispatch), 0u);
}

// Where the router and the shared experts read inputs of their own, there are two norms to repeat.
TEST(Recompute, EveryNormOfALayerIsRepeated) {
  EXPECT_EQ(again(recompute(example("fresh-shared"), RecomputeKind::experts))[OpKind::norm],
            2 * layers);
  EXPECT_EQ(again(recompute(example("standard"), RecomputeKind::all))[OpKind::norm], 2 * layers);
}

// What the forward pass leaves for the backward one, by name, of values that layers make.
std::set<std::string> kept(const Graph& graph) {
  const OpId loss = last_forward_op(graph);
  std::set<std::string> names;
  for (const Op& op : graph.ops().subspan(loss + 1)) {
    for (ValueId id : op.inputs) {
      const OpId producer = graph.value(id).producer;
      if (producer == none || producer > loss) continue;
      if (graph.op(producer).attributes.layer > 0) names.insert(graph.value(id).name);
    }
  }
  return names;
}

TEST(Recompute, OnlyWhatTheHeaderSaysIsKept) {
  std::set<std::string> expected = {
      "residual",      "inverse order", "routing weights", "chosen experts",
      "router logits", "combined rows", "rows per expert", "received rows per expert",
      "received rows"};
  EXPECT_EQ(kept(recompute(example(), RecomputeKind::all)), expected);
  // Received rows come again; rows to send need the order that the plan made, kept as its inverse.
  expected.erase("received rows");
  EXPECT_EQ(kept(recompute(example(), RecomputeKind::all_and_dispatch)), expected);

  const std::set<std::string> attention = kept(recompute(example(), RecomputeKind::attention));
  for (const char* name : {"q", "k", "v", "attention heads", "first product", "log-sum-exp"}) {
    EXPECT_TRUE(kept(example()).count(name)) << name;
    EXPECT_FALSE(attention.count(name)) << name;
  }
  EXPECT_TRUE(attention.count("gate and up"));
  const std::set<std::string> experts = kept(recompute(example(), RecomputeKind::experts));
  EXPECT_FALSE(experts.count("gate and up"));
  EXPECT_TRUE(experts.count("attention heads"));
}

bool depends_on(const Graph& graph, OpId op, OpId on) {
  std::vector<bool> reaches(graph.ops().size(), false);
  reaches[on] = true;
  for (OpId id = on + 1; id <= op; ++id) {
    for (OpId before : graph.predecessors(id)) reaches[id] = reaches[id] || reaches[before];
  }
  return reaches[op];
}

// Neither early, when it would be held for long, nor late, when it could hide nothing.
TEST(Recompute, RunsBetweenTheGradientOfItsBlockAndTheOpThatReadsIt) {
  const Graph graph = recompute(example(), RecomputeKind::all_and_dispatch);
  const OpId loss = last_forward_op(graph);
  for (const Op& op : graph.ops()) {
    if (!op.attributes.again) continue;
    SCOPED_TRACE(std::string(to_string(op.kind)) + " of layer " +
                 std::to_string(op.attributes.layer));
    ASSERT_EQ(op.order_after.size(), 1u);
    EXPECT_GT(op.order_after[0], loss);
    for (const Op& other : graph.ops()) {
      if (other.attributes.layer != op.attributes.layer) continue;
      const bool first_of_block = other.kind == OpKind::combine_gradient ||
                                  other.kind == OpKind::linear_gradient ||
                                  other.kind == OpKind::mlp_gradient;
      if (first_of_block && other.id < op.id) {
        EXPECT_FALSE(depends_on(graph, op.id, other.id)) << to_string(other.kind);
      }
    }
  }
}

// Bytes a token and layer, docs/formulas.md section 5.
TEST(Recompute, HoldsWhatTheFormulasSay) {
  auto held = [](RecomputeKind kind, int count) {
    const Graph graph =
        recompute(backward("deepseek-v3", "farskip", bf16_step(8, 4096, 2048), count), kind);
    const OpId loss = last_forward_op(graph);
    double bytes = 0;
    for (const Value& value : graph.values()) {
      const auto readers = graph.consumers(value.id);
      const bool made_forward = value.producer != none && value.producer <= loss;
      if (made_forward && !readers.empty() && readers.back() > loss) {
        bytes += graph.expected_bytes(value.id);
      }
    }
    return bytes;
  };
  auto a_layer = [&](RecomputeKind kind) { return (held(kind, 4) - held(kind, 3)) / 4096; };
  const double always = 2 * 14336 + 8 * 14336 + 256 * 4 + 8 * (8 + 8 + 4), received = 8 * 14336;
  const double attention = 14336 + 2 * (81920 + 2112) + 4 * 128, experts = 14336 + 2 * 9 * 4096;
  EXPECT_NEAR(a_layer(RecomputeKind::none), always + received + attention + experts, 10);
  EXPECT_NEAR(a_layer(RecomputeKind::attention), always + received + experts, 10);
  EXPECT_NEAR(a_layer(RecomputeKind::experts), always + received + attention, 10);
  EXPECT_NEAR(a_layer(RecomputeKind::all), always + received, 10);
  EXPECT_NEAR(a_layer(RecomputeKind::all_and_dispatch), always, 10);
}

// FLOPs a token and layer, docs/formulas.md section 5.
TEST(Recompute, CostsWhatTheFormulasSay) {
  auto mflops = [](RecomputeKind kind) {
    const Graph graph = recompute(example(), kind);
    const double flops = cost_of_recomputing(graph).flops;
    EXPECT_NEAR(total_cost(graph).flops, total_cost(example()).flops + flops, 1e-9 * flops);
    return flops / 4096 / layers / 1e6;
  };
  EXPECT_EQ(mflops(RecomputeKind::none), 0);
  EXPECT_NEAR(mflops(RecomputeKind::attention), 97.52 + 8.26 + 33.55 + 83.89, 0.03);
  EXPECT_NEAR(mflops(RecomputeKind::experts), 2.0 / 3 * (704.64 + 88.08), 0.02);
  EXPECT_NEAR(mflops(RecomputeKind::all_and_dispatch), 223.22 + 528.48, 0.05);
}

TEST(Recompute, OtherRewritesCutWhatIsComputedAgain) {
  const Graph graph = recompute(example(), RecomputeKind::all);
  EXPECT_TRUE(graph.keeps_bits());
  const Graph cut = pieces(expert_chunks(two_batch(graph), 2), 3);
  EXPECT_EQ(again(cut)[OpKind::experts_products], layers * 2 * 2);
  EXPECT_EQ(again(cut)[OpKind::mlp_products], layers * 2 * 3);
  EXPECT_EQ(again(cut)[OpKind::attention_core], layers * 2 * 3);
  const OpId loss = last_forward_op(cut);
  for (const Op& op : cut.ops()) {
    if (!op.attributes.again || op.kind == OpKind::join) continue;
    ASSERT_FALSE(op.order_after.empty()) << to_string(op.kind);
    for (OpId before : op.order_after) {
      EXPECT_EQ(cut.op(before).attributes.micro_batch, op.attributes.micro_batch);
      EXPECT_GT(before, loss - 2);  // two micro-batches have a loss each
    }
  }
}

TEST(Recompute, NoneIsTheGraphItself) {
  EXPECT_EQ(recompute(example(), RecomputeKind::none).hash(), example().hash());
  EXPECT_NE(recompute(example(), RecomputeKind::attention).hash(), example().hash());
}

TEST(Recompute, RefusesWhatHasNoBackwardOrWasRewritten) {
  StepSpec spec = bf16_step(8, 4096, 2048);
  const Graph logits = forward(moe_layers("deepseek-v3", layers), "farskip", spec);
  spec.end = StepEnd::loss;
  const Graph loss = forward(moe_layers("deepseek-v3", layers), "farskip", spec);
  for (RecomputeKind kind : {RecomputeKind::none, RecomputeKind::all}) {
    EXPECT_THROW(recompute(logits, kind), GraphError);
    EXPECT_THROW(recompute(loss, kind), GraphError);
    EXPECT_THROW(recompute(two_batch(example()), kind), GraphError);
    EXPECT_THROW(recompute(expert_chunks(example(), 2), kind), GraphError);
    EXPECT_THROW(recompute(pieces(example(), 2), kind), GraphError);
    EXPECT_THROW(recompute(recompute(example(), RecomputeKind::experts), kind), GraphError);
  }
}

TEST(Recompute, KindsHaveNames) {
  EXPECT_EQ(recompute_kinds().size(), 5u);
  for (RecomputeKind kind : recompute_kinds()) EXPECT_EQ(recompute_kind(to_string(kind)), kind);
  EXPECT_STREQ(to_string(RecomputeKind::all_and_dispatch), "all-and-dispatch");
  for (const char* name : {"", "All", "everything"}) EXPECT_THROW(recompute_kind(name), UsageError);
}

}  // namespace
}  // namespace farskip
