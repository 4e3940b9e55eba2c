#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>

#include "../graph/models.h"
#include "farskip/graph/differentiate.h"
#include "farskip/graph/rewrite.h"
#include "farskip/schedule/evaluate.h"
#include "farskip/schedule/schedule.h"

namespace farskip {
namespace {

// Nanoseconds per token of one DeepSeek-V3 layer: docs/formulas.md section 4, H200.
struct LayerTimes {
  double prepare, core, output, gate, routed, shared, dispatch, combine;
  double hideable() const { return prepare + core + output + shared; }
  double fixed() const { return routed + gate; }
  double communication() const { return dispatch + combine; }
  double two_windows() const {
    return fixed() + std::max(core + output, dispatch) + std::max(prepare + shared, combine);
  }
  double one_window() const { return fixed() + std::max(hideable(), communication()); }
};

// FLOPs over the rates of the formulas; wire times at the given bandwidths.
LayerTimes v3(double gemm_rate, double dispatch, double combine) {
  const double core_rate = 522.0;
  return {139.33e3 / gemm_rate,
          83.89e3 / core_rate,
          234.88e3 / gemm_rate,
          3.67e3 / gemm_rate,
          704.64e3 / gemm_rate,
          88.08e3 / gemm_rate,
          dispatch,
          combine};
}
const LayerTimes bf16 = v3(794.5, 240, 240);         // EP8, de-duplicated
const LayerTimes fp8_16 = v3(1453.4, 164, 317);      // EP16, FP8 dispatch and BF16 combine
const LayerTimes past_knee = v3(794.5, 1275, 1275);  // EP16, plain copies

double share_of(const Graph& graph, const Op& op) {
  return op.attributes.pieces > 1 || op.attributes.chunks > 1
             ? 1.0 / (op.attributes.pieces * op.attributes.chunks)
             : (graph.ops().empty() ? 0.0 : 1.0);
}

Durations durations_of(const Graph& graph, const LayerTimes& times) {
  const std::map<OpKind, double> seconds = {{OpKind::attention_prepare, times.prepare},
                                            {OpKind::attention_core, times.core},
                                            {OpKind::output_projection, times.output},
                                            {OpKind::router, times.gate},
                                            {OpKind::experts, times.routed},
                                            {OpKind::shared_experts, times.shared},
                                            {OpKind::dispatch, times.dispatch},
                                            {OpKind::combine, times.combine}};
  Durations durations(graph.ops().size(), 0);
  for (const Op& op : graph.ops()) {
    const auto found = seconds.find(op.kind);
    if (found == seconds.end()) continue;
    const bool cut = op.attributes.pieces > 1 || op.kind == OpKind::dispatch ||
                     op.kind == OpKind::experts || op.kind == OpKind::combine;
    durations[op.id] = found->second * (cut ? share_of(graph, op) : 1.0);
  }
  return durations;
}

// Seconds that one more layer takes deep inside the model.
double per_layer(const LayerTimes& times, const char* preset, const char* schedule, int chunks,
                 int cuts) {
  auto step = [&](int layers) {
    const ModelConfig model = testing::moe_layers("deepseek-v3", layers);
    const Graph graph = pieces(
        expert_chunks(testing::forward(model, preset, testing::bf16_step(8, 4096, 2048)), chunks),
        cuts);
    const Durations durations = durations_of(graph, times);
    const Schedule plan = make_schedule(schedule, graph, durations);
    verify(graph, plan);
    return evaluate(graph, plan, durations).step;
  };
  return (step(16) - step(8)) / 8;
}

TEST(SteadyState, BlockingPaysForEverything) {
  for (const LayerTimes& times : {bf16, fp8_16, past_knee}) {
    EXPECT_NEAR(per_layer(times, "standard", "blocking", 1, 1),
                times.hideable() + times.fixed() + times.communication(), 1e-6);
  }
}

TEST(SteadyState, ReleasedIsTheTwoWindowForm) {
  for (const LayerTimes& times : {bf16, fp8_16, past_knee}) {
    EXPECT_NEAR(per_layer(times, "farskip", "released", 1, 1), times.two_windows(), 1e-6);
  }
}

// Gradients by inputs and by weights take as long as the forward op each, attention's core 2.5
// times; collectives go back in the time of their forward duals.
double gradient_seconds(const Graph& graph, const Op& op, const LayerTimes& times) {
  switch (op.kind) {
    case OpKind::attention_prepare_gradient:
    case OpKind::attention_prepare_weight_gradient:
      return times.prepare;
    case OpKind::attention_core_gradient:
      return 2.5 * times.core;
    case OpKind::linear_gradient:
      return op.attributes.layer > 0 ? times.output : 0;
    case OpKind::mlp_gradient:
      return times.shared;
    case OpKind::experts_gradient:
    case OpKind::experts_weight_gradient:
      return times.routed;
    case OpKind::router_gradient:
      return times.gate;
    case OpKind::combine_gradient:
      return times.combine;
    case OpKind::dispatch_gradient:
      return times.dispatch;
    default:
      break;
  }
  if (op.kind != OpKind::linear_weight_gradient) return 0;
  const std::string& weight = graph.value(op.accumulates.at(0)).name;
  if (weight.ends_with("attention.output")) return times.output;
  if (weight.ends_with("shared.gate_up")) return times.shared * 2 / 3;
  if (weight.ends_with("shared.down")) return times.shared / 3;
  return weight.ends_with("router") ? times.gate : 0;
}

// The released training code keeps two windows in the backward pass: the next layer's q, k, v and
// the shared experts beside combine's gradient, attention core and output projection beside
// dispatch's.
TEST(SteadyState, ReleasedBackwardIsTheTwoWindowFormToo) {
  for (const LayerTimes& times : {bf16, fp8_16, past_knee}) {
    auto step = [&](int layers) {
      StepSpec spec = testing::bf16_step(8, 4096, 2048);
      spec.end = StepEnd::loss;
      const Graph graph = differentiate(
          testing::forward(testing::moe_layers("deepseek-v3", layers), "farskip", spec));
      Durations durations = durations_of(graph, times);
      for (const Op& op : graph.ops()) durations[op.id] += gradient_seconds(graph, op, times);
      return evaluate(graph, released_schedule(graph), durations).step;
    };
    const double backward = 2 * times.fixed() +
                            std::max(2 * (times.prepare + times.shared), times.combine) +
                            std::max(2 * times.output + 2.5 * times.core, times.dispatch);
    EXPECT_NEAR((step(16) - step(8)) / 8, times.two_windows() + backward, 1e-6);
  }
}

TEST(SteadyState, OverlappedLiesBetweenTwoWindowsAndOne) {
  for (const LayerTimes& times : {bf16, fp8_16, past_knee}) {
    const double overlapped = per_layer(times, "farskip", "overlapped", 1, 1);
    EXPECT_LE(overlapped, times.two_windows() * (1 + 1e-9));
    EXPECT_GE(overlapped, times.one_window() * (1 - 1e-9));
  }
}

TEST(SteadyState, PiecesTendToOneWindow) {
  for (const LayerTimes& times : {bf16, fp8_16, past_knee}) {
    const double gap_of_4 = per_layer(times, "farskip", "overlapped", 1, 4) - times.one_window();
    const double gap_of_16 = per_layer(times, "farskip", "overlapped", 1, 16) - times.one_window();
    EXPECT_LE(gap_of_16, 0.02 * times.one_window());
    EXPECT_LE(gap_of_16, gap_of_4 + 1e-6);
  }
}

TEST(SteadyState, ChunksTendToTheLargerOfComputeAndCommunication) {
  for (const LayerTimes& times : {bf16, fp8_16, past_knee}) {
    const double compute = times.hideable() + times.fixed();
    const double limit = std::max(compute, times.communication());
    EXPECT_LE(per_layer(times, "farskip", "overlapped", 8, 8), 1.04 * limit);
    EXPECT_GE(per_layer(times, "farskip", "overlapped", 8, 8), limit * (1 - 1e-9));
  }
}

TEST(SteadyState, ConnectivitiesThatFreeAttentionGiveUpNextToNoOverlap) {
  for (const LayerTimes& times : {bf16, fp8_16}) {
    const double standard = per_layer(times, "standard", "overlapped", 1, 16);
    const double farskip = per_layer(times, "farskip", "overlapped", 1, 16);
    EXPECT_LT(farskip, standard);
    // Attention that lacks only the routed output runs a layer ahead: the router can see it fresh.
    EXPECT_LE(per_layer(times, "attention-only", "overlapped", 1, 16), 1.02 * farskip);
    EXPECT_LE(per_layer(times, "fresh-shared", "overlapped", 1, 16), 1.02 * farskip);
    // Not so in the released order, which launches this layer's attention behind its dispatch.
    EXPECT_GT(per_layer(times, "attention-only", "released", 1, 1),
              1.02 * per_layer(times, "farskip", "released", 1, 1));
  }
}

}  // namespace
}  // namespace farskip
