#include "farskip/graph/cost.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "farskip/graph/rewrite.h"
#include "models.h"

namespace farskip {
namespace {

using testing::bf16_step;
using testing::forward;
using testing::moe_layers;

// Million FLOPs per token of one MoE layer, by op kind.
std::map<OpKind, double> mflops(const char* name) {
  const double tokens = 2048;
  const ModelConfig model = moe_layers(name, 1);
  const Graph graph = forward(model, "standard", bf16_step(8, tokens, 2048));
  std::map<OpKind, double> by_kind;
  for (const Op& op : graph.ops()) by_kind[op.kind] += cost_of(graph, op).flops / tokens / 1e6;
  return by_kind;
}

TEST(Cost, DeepSeekV3LayerMatchesTheWorkedExample) {
  auto flops = mflops("deepseek-v3");
  EXPECT_NEAR(flops[OpKind::attention_prepare], 97.52 + 8.26 + 33.55, 0.02);
  EXPECT_NEAR(flops[OpKind::attention_core], 83.89, 0.01);
  EXPECT_NEAR(flops[OpKind::output_projection], 234.88, 0.01);
  EXPECT_NEAR(flops[OpKind::router], 3.67, 0.01);
  EXPECT_NEAR(flops[OpKind::experts], 704.64, 0.01);
  EXPECT_NEAR(flops[OpKind::shared_experts], 88.08, 0.01);
}

struct Row {
  const char* name;
  double prepare, core, output, gate, routed, shared;
};

// The table of docs/formulas.md section 1 for models whose layer is one attention and one MoE.
TEST(Cost, EveryModelMatchesTheFlopTable) {
  const Row rows[] = {{"deepseek-v2-lite", 19.1, 10.5, 8.4, 0.26, 103.8, 34.6},
                      {"deepseek-v2", 130.7, 83.9, 167.8, 1.64, 283.1, 94.4},
                      {"glm-4.5-air", 117.4, 50.3, 100.7, 1.05, 276.8, 34.6},
                      {"glm-4.5", 146.8, 50.3, 125.8, 1.64, 377.5, 47.2},
                      {"kimi-k2", 84.8, 41.9, 117.4, 5.51, 704.6, 88.1},
                      {"minimax-m2", 50.3, 25.2, 37.7, 1.57, 226.5, 0.0},
                      {"mixtral-8x22b", 100.7, 25.2, 75.5, 0.10, 1208.0, 0.0},
                      {"olmoe-1b-7b", 25.2, 8.4, 8.4, 0.26, 100.7, 0.0},
                      {"qwen2-57b-a14b", 33.0, 14.7, 25.7, 0.46, 440.4, 440.4},
                      {"qwen3-235b-a22b", 75.5, 33.6, 67.1, 1.05, 302.0, 0.0},
                      {"qwen3-30b-a3b", 21.0, 16.8, 16.8, 0.52, 75.5, 0.0}};
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    auto flops = mflops(row.name);
    EXPECT_NEAR(flops[OpKind::attention_prepare], row.prepare, 0.06);
    EXPECT_NEAR(flops[OpKind::attention_core], row.core, 0.06);
    EXPECT_NEAR(flops[OpKind::output_projection], row.output, 0.06);
    EXPECT_NEAR(flops[OpKind::router], row.gate, 0.006);
    EXPECT_NEAR(flops[OpKind::experts], row.routed, 0.06);
    EXPECT_NEAR(flops[OpKind::shared_experts], row.shared, 0.06);
  }
}

double bytes_per_token(const Graph& graph, OpKind kind, double tokens) {
  double bytes = 0;
  for (const Op& op : graph.ops()) {
    if (op.kind == kind) bytes += cost_of(graph, op).bytes_sent;
  }
  return bytes / tokens;
}

TEST(Cost, BytesOnTheWireMatchTheWorkedExamples) {
  const ModelConfig model = moe_layers("deepseek-v3", 1);
  auto bytes = [&](int ranks, DispatchForm form, DType wire, RoutingMode routing, OpKind kind) {
    StepSpec spec = bf16_step(ranks, 4096, 2048);
    spec.dispatch = form;
    spec.wire = wire;
    spec.routing = routing;
    return bytes_per_token(forward(model, "standard", spec), kind, 4096);
  };
  const auto expert = DispatchForm::per_expert, rank = DispatchForm::per_rank;
  const auto free = RoutingMode::balanced, limited = RoutingMode::model;
  const DType bf16 = DType::bfloat16, fp8 = DType::float8_e4m3;
  EXPECT_NEAR(bytes(8, expert, bf16, free, OpKind::dispatch), 100352, 1);
  EXPECT_NEAR(bytes(32, expert, bf16, free, OpKind::combine), 111104, 1);
  EXPECT_NEAR(bytes(8, expert, fp8, free, OpKind::dispatch), 8 * 7392 * 7.0 / 8, 1);
  // Beside each of 5.295 and 7.267 per-rank rows travel 8 experts and weights, 64 bytes.
  EXPECT_NEAR(bytes(8, rank, fp8, free, OpKind::dispatch), 34246 + 5.295 * 64 * 7 / 8, 1);
  EXPECT_NEAR(bytes(8, rank, fp8, free, OpKind::combine), 66416, 1);
  EXPECT_NEAR(bytes(32, rank, fp8, free, OpKind::dispatch), 52038 + 7.267 * 64 * 31 / 32, 1);
  EXPECT_NEAR(bytes(32, rank, fp8, free, OpKind::combine), 100921, 1);
  // Group-limited: 3.63 and 6.60 distinct ranks.
  EXPECT_NEAR(bytes(8, rank, bf16, limited, OpKind::combine), 3.63 * 14336 * 7 / 8, 40);
  EXPECT_NEAR(bytes(32, rank, bf16, limited, OpKind::combine), 6.60 * 14336 * 31 / 32, 70);
}

TEST(Cost, ChunksKeepTotalFlopsAndBytes) {
  const ModelConfig model = moe_layers("deepseek-v3", 2);
  for (DispatchForm form : {DispatchForm::per_expert, DispatchForm::per_rank}) {
    StepSpec spec = bf16_step(8, 4096, 2048);
    spec.dispatch = form;
    spec.routing = RoutingMode::balanced;
    const Graph whole = forward(model, "farskip", spec);
    const Graph cut = pieces(expert_chunks(whole, 4), 3);
    EXPECT_NEAR(total_cost(cut).flops / total_cost(whole).flops, 1, 1e-9);
    // Per-rank counts are told for every chunk: a few bytes.
    const double tolerance = form == DispatchForm::per_rank ? 2e-6 : 1e-9;
    EXPECT_NEAR(total_cost(cut).bytes_sent / total_cost(whole).bytes_sent, 1, tolerance);
  }
}

// What is received goes to its experts, and what they make of it into the sums, once, in however
// many chunks.
TEST(Cost, PerRankRowsAreArrangedAndWeighedOnce) {
  const ModelConfig model = moe_layers("deepseek-v3", 1);
  StepSpec spec = bf16_step(8, 4096, 2048);
  spec.dispatch = DispatchForm::per_rank;
  spec.routing = RoutingMode::balanced;
  const Graph whole = forward(model, "farskip", spec);
  const auto bytes = [](const Graph& graph, OpKind kind) {
    double sum = 0;
    for (const Op& op : graph.ops()) {
      if (op.kind == kind) sum += cost_of(graph, op).bytes_moved;
    }
    return sum;
  };
  const double row = 7168 * 2, packet = row + 64, tokens = 4096, copies = 5.295;
  EXPECT_NEAR(bytes(whole, OpKind::arrange) / (tokens * (copies * packet + 8 * row)), 1, 0.01);
  EXPECT_NEAR(bytes(whole, OpKind::weigh) / (tokens * (8 + copies) * row), 1, 0.01);
  const Graph cut = expert_chunks(whole, 4);
  EXPECT_NEAR(bytes(cut, OpKind::weigh) / bytes(whole, OpKind::weigh), 1, 0.01);
  EXPECT_LT(bytes(cut, OpKind::arrange), 1.25 * bytes(whole, OpKind::arrange));
}

TEST(Cost, ReplicatedStepReducesWholeRows) {
  const ModelConfig model = moe_layers("deepseek-v3", 1);
  StepSpec spec = bf16_step(8, 4096, 2048);
  spec.form = ParallelForm::replicated_all_reduce;
  const Graph graph = forward(model, "farskip", spec);
  for (const Op& op : graph.ops()) {
    if (op.kind == OpKind::all_reduce) {
      EXPECT_NEAR(cost_of(graph, op).bytes_sent, 102.8e6, 0.1e6);
    }
  }
}

}  // namespace
}  // namespace farskip
