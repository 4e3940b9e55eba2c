#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "farskip/graph/differentiate.h"
#include "farskip/graph/rewrite.h"
#include "farskip/graph/step_outputs.h"
#include "farskip/graph/update.h"
#include "models.h"

namespace farskip {
namespace {

constexpr int layers = 3;

StepSpec spec_of(const RouterLosses& losses, int data_parallel = 1) {
  StepSpec spec = testing::bf16_step(8, 4096, 2048);
  spec.data_parallel = data_parallel;
  spec.end = StepEnd::loss;
  spec.router_losses = losses;
  return spec;
}

Graph backward(const StepSpec& spec) {
  return differentiate(
      testing::forward(testing::moe_layers("deepseek-v3", layers), "farskip", spec));
}

std::vector<Op> ops_of(const Graph& graph, OpKind kind) {
  std::vector<Op> ops;
  for (const Op& op : graph.ops()) {
    if (op.kind == kind) ops.push_back(op);
  }
  return ops;
}

std::vector<std::string> output_names(const Graph& graph) {
  std::vector<std::string> names;
  for (ValueId id : graph.outputs()) names.push_back(graph.value(id).name);
  return names;
}

using Names = std::vector<std::string>;

TEST(RouterLossOps, OneCollectiveForTheLoadsOfAllLayers) {
  const Graph graph = backward(spec_of({.balance = 0.01}, 2));
  const std::vector<Op> loads = ops_of(graph, OpKind::expert_loads);
  ASSERT_EQ(loads.size(), 1u);
  EXPECT_EQ(loads[0].inputs.size(), static_cast<size_t>(layers));
  const std::vector<Op> reductions = ops_of(graph, OpKind::all_reduce);
  ASSERT_EQ(reductions.size(), 1u);
  EXPECT_EQ(reductions[0].attributes.ranks, 16);
  EXPECT_EQ(reductions[0].lane, Lane::communication);
  EXPECT_LT(reductions[0].id, last_forward_op(graph));
  const std::vector<Op> losses = ops_of(graph, OpKind::router_loss);
  ASSERT_EQ(losses.size(), static_cast<size_t>(layers));
  for (const Op& op : losses) {
    EXPECT_EQ(op.inputs.back(), reductions[0].outputs[0]);
    EXPECT_EQ(op.attributes.router, op.attributes.layer - 1);
    // Only the gradient by the logits waits for it, and the sum of the losses.
    for (OpId reader : graph.consumers(op.outputs[0])) {
      EXPECT_EQ(graph.op(reader).kind, OpKind::router_gradient);
    }
  }
  EXPECT_EQ(output_names(graph),
            (Names{step_outputs::loss, step_outputs::expert_loads, step_outputs::router_losses}));
}

TEST(RouterLossOps, AreThereOnlyWhereTheyAreAskedFor) {
  const Graph none = backward(spec_of({}));
  EXPECT_TRUE(ops_of(none, OpKind::router_loss).empty());
  EXPECT_TRUE(ops_of(none, OpKind::expert_loads).empty());
  EXPECT_EQ(output_names(none), Names{step_outputs::loss});

  const Graph sequences = backward(spec_of({.sequence_balance = 1e-4, .z = 1e-3}));
  EXPECT_TRUE(ops_of(sequences, OpKind::all_reduce).empty());
  EXPECT_EQ(output_names(sequences), (Names{step_outputs::loss, step_outputs::router_losses}));

  StepSpec counted = spec_of({});
  counted.expert_loads = true;
  EXPECT_EQ(output_names(backward(counted)),
            (Names{step_outputs::loss, step_outputs::expert_loads}));

  StepSpec alone = spec_of({.balance = 0.01});
  alone.ranks = 1;
  EXPECT_TRUE(ops_of(backward(alone), OpKind::all_reduce).empty());

  StepSpec balanced = spec_of({.balance = 0.01});
  balanced.routing = RoutingMode::balanced;
  EXPECT_TRUE(ops_of(backward(balanced), OpKind::router_loss).empty());

  EXPECT_NE(backward(spec_of({.z = 1e-3})).hash(), backward(spec_of({.z = 2e-3})).hash());
}

TEST(RouterLossOps, TwoBatchCountsLoadsOverBothHalves) {
  const Graph graph = two_batch(backward(spec_of({.balance = 0.01})));
  const std::vector<Op> loads = ops_of(graph, OpKind::expert_loads);
  ASSERT_EQ(loads.size(), 1u);
  EXPECT_EQ(loads[0].inputs.size(), 2u * layers);
  EXPECT_EQ(graph.value(loads[0].outputs[0]).shape[0].size, layers);
  const std::vector<Op> reductions = ops_of(graph, OpKind::all_reduce);
  ASSERT_EQ(reductions.size(), 1u);
  for (const Op& op : ops_of(graph, OpKind::router_loss)) {
    EXPECT_EQ(op.inputs.back(), reductions[0].outputs[0]);
  }
  EXPECT_EQ(output_names(graph),
            (Names{step_outputs::loss, step_outputs::loss, step_outputs::expert_loads,
                   step_outputs::router_losses, step_outputs::router_losses}));
}

TEST(RouterLossOps, UpdateStepsGiveOutWhatTheStepDoes) {
  for (const bool two : {false, true}) {
    Graph graph = backward(spec_of({.balance = 0.01}, 2));
    if (two) graph = two_batch(graph);
    const Graph update = add_update(graph, plan_buckets(graph, 1e6), 16);
    Names expected = output_names(graph);
    expected.push_back(step_outputs::squares);
    EXPECT_EQ(output_names(update), expected);
    EXPECT_EQ(ops_of(update, OpKind::all_reduce).size(), 2u);  // of loads and squares
  }
}

}  // namespace
}  // namespace farskip
