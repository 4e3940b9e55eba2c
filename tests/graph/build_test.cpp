#include "farskip/graph/build.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "farskip/base/error.h"
#include "farskip/graph/cost.h"
#include "models.h"

namespace farskip {
namespace {

using testing::bf16_step;
using testing::forward;
using testing::moe_layers;

// Everything that must be finished before an op.
std::set<OpId> ancestors(const Graph& graph, OpId op) {
  std::set<OpId> found;
  std::vector<OpId> open = {op};
  while (!open.empty()) {
    const OpId at = open.back();
    open.pop_back();
    for (OpId before : graph.predecessors(at)) {
      if (found.insert(before).second) open.push_back(before);
    }
  }
  return found;
}

OpId find(const Graph& graph, OpKind kind, int layer) {
  for (const Op& op : graph.ops()) {
    if (op.kind == kind && op.attributes.layer == layer) return op.id;
  }
  return none;
}

bool needs(const Graph& graph, OpKind kind, int layer, OpKind before, int before_layer) {
  return ancestors(graph, find(graph, kind, layer)).contains(find(graph, before, before_layer));
}

TEST(Build, StandardLeavesNothingToOverlapButSharedExperts) {
  const Graph graph = forward(moe_layers("deepseek-v3", 4), "standard", bf16_step(8, 1024, 512));
  EXPECT_TRUE(needs(graph, OpKind::attention_prepare, 3, OpKind::combine, 2));
  EXPECT_TRUE(needs(graph, OpKind::router, 3, OpKind::output_projection, 3));
  EXPECT_FALSE(needs(graph, OpKind::shared_experts, 3, OpKind::dispatch, 3));
}

TEST(Build, FarskipFreesAttentionFromCombineAndRouterFromAttention) {
  const Graph graph = forward(moe_layers("deepseek-v3", 4), "farskip", bf16_step(8, 1024, 512));
  EXPECT_FALSE(needs(graph, OpKind::attention_prepare, 3, OpKind::combine, 2));
  EXPECT_TRUE(needs(graph, OpKind::attention_prepare, 3, OpKind::combine, 1));
  EXPECT_FALSE(needs(graph, OpKind::router, 3, OpKind::attention_prepare, 3));
  EXPECT_TRUE(needs(graph, OpKind::router, 3, OpKind::combine, 2));
}

TEST(Build, FreshSharedReadsThisLayersAttentionBesideAnOutdatedRouter) {
  const Graph graph =
      forward(moe_layers("deepseek-v3", 3), "fresh-shared", bf16_step(8, 1024, 512));
  EXPECT_TRUE(needs(graph, OpKind::shared_experts, 2, OpKind::output_projection, 2));
  EXPECT_FALSE(needs(graph, OpKind::router, 2, OpKind::output_projection, 2));
}

TEST(Build, ASingleRankDispatchesNothingAndNeverWaits) {
  const Graph graph = forward(moe_layers("deepseek-v3", 3), "farskip", bf16_step(1, 1024, 512));
  for (const Op& op : graph.ops()) {
    EXPECT_EQ(op.lane, Lane::compute) << to_string(op.kind);
    EXPECT_FALSE(op.host_waits) << to_string(op.kind);
  }
  EXPECT_EQ(total_cost(graph).bytes_sent, 0);
}

TEST(Build, SumsGrowLinearlyWithLayersForEveryPreset) {
  for (const char* preset : {"standard", "farskip", "ladder", "depth-3", "last-50%", "mlp-only"}) {
    auto terms = [&](int layers) {
      const Graph graph =
          forward(moe_layers("deepseek-v3", layers), preset, bf16_step(8, 1024, 512));
      size_t count = 0;
      for (const Op& op : graph.ops()) {
        if (op.kind == OpKind::sum) count += op.inputs.size() - 1;
      }
      return count;
    };
    // Shared prefixes are stored once: doubling the layers about doubles the additions.
    EXPECT_LT(terms(40), 2.2 * terms(20)) << preset;
  }
}

TEST(Build, HashTellsStructureButNotExpectedSizes) {
  const ModelConfig model = moe_layers("olmoe-1b-7b", 3);
  const uint64_t hash = forward(model, "farskip", bf16_step(4, 100, 50)).hash();
  EXPECT_EQ(hash, forward(model, "farskip", bf16_step(4, 999, 111)).hash());
  EXPECT_NE(hash, forward(model, "standard", bf16_step(4, 100, 50)).hash());
  EXPECT_NE(hash, forward(model, "farskip", bf16_step(8, 100, 50)).hash());
}

// A single rank dispatches nothing, so neither the form nor the wire shows.
TEST(Build, ASingleRankHasOneDispatchForm) {
  const ModelConfig model = moe_layers("deepseek-v3", 2);
  StepSpec spec = bf16_step(1, 1024, 512);
  const uint64_t hash = forward(model, "farskip", spec).hash();
  spec.dispatch = DispatchForm::per_rank;
  spec.wire = DType::float8_e4m3;
  EXPECT_EQ(forward(model, "farskip", spec).hash(), hash);
}

TEST(Build, RefusesWhatDoesNotFit) {
  const ModelConfig model = moe_layers("mixtral-8x7b", 2);
  const Connectivity other = Connectivity::preset("farskip", moe_layers("mixtral-8x7b", 3).layers);
  EXPECT_THROW(build_forward(model, other, bf16_step(2, 8, 4)), GraphError);
  EXPECT_THROW(forward(model, "farskip", bf16_step(9, 8, 4)), GraphError);
  EXPECT_THROW(forward(model, "farskip", bf16_step(0, 8, 4)), GraphError);
  StepSpec narrow = bf16_step(2, 8, 4);
  narrow.wire = DType::float16;
  EXPECT_THROW(forward(model, "farskip", narrow), GraphError);
}

TEST(Build, EveryShippedModelBuildsInBothForms) {
  for (const BuiltinModel& builtin : builtin_models()) {
    const std::string name(builtin.name);
    const ModelConfig model = load_model(name);
    for (ParallelForm form :
         {ParallelForm::expert_all_to_all, ParallelForm::replicated_all_reduce}) {
      StepSpec spec = bf16_step(8, 4096, 2048);
      spec.form = form;
      const Graph graph = forward(model, "farskip", spec);
      EXPECT_GT(graph.ops().size(), 10u * model.layer_count()) << name;
      EXPECT_EQ(graph.outputs().size(), 1u);
    }
  }
}

}  // namespace
}  // namespace farskip
