#include "farskip/graph/pipeline.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "backward.h"
#include "farskip/comm/ranks.h"
#include "farskip/comm/stages.h"
#include "farskip/graph/step_outputs.h"
#include "farskip/runtime/kernels.h"

namespace farskip::testing {
namespace {

constexpr const char* presets[] = {"standard", "farskip",      "attention-only", "mlp-only",
                                   "last-2",   "fresh-shared", "ladder",         "depth-2"};

struct PipelineOptions {
  int stages = 1, ranks = 1, micro_batches = 1;
  StepForm form = {.schedule = "overlapped", .goal = StepGoal::gradients};
  std::optional<uint64_t> chaos_seed = {};
};

// What a step came to: losses by rank and micro-batch, expert loads of all layers by micro-batch,
// gradients by weight and rank of the stage that has it.
struct PipelineResult {
  std::vector<at::Tensor> losses, router_losses, expert_loads;
  std::map<std::string, std::vector<at::Tensor>> gradients;
  std::vector<StepResult> ranks;
};

std::vector<PlannedStep> plan_stages(const Fixture& fixture, const std::string& connectivity,
                                     const TokenBatch& tokens, const PipelineOptions& options) {
  const ModelConfig& model = fixture.config();
  const std::vector<int64_t> lengths(tokens.lengths.begin(), tokens.lengths.end());
  const Graph step = build_step(model, Connectivity::load(connectivity, model.layers),
                                options.ranks, lengths, options.form);
  std::vector<PlannedStep> steps;
  for (Graph& graph : pipeline_stages(step, even_stages(model.layer_count(), options.stages),
                                      options.micro_batches)) {
    const Durations durations = nominal_durations(graph);
    steps.push_back(schedule_step(std::move(graph), options.form.schedule, durations));
  }
  return steps;
}

// The loads of the layers of one more stage.
void add_loads(std::vector<at::Tensor>& loads, size_t micro_batch, const at::Tensor& of_stage) {
  if (micro_batch == loads.size()) return loads.push_back(of_stage);
  loads[micro_batch] = at::cat({loads[micro_batch], of_stage});
}

PipelineResult run_pipeline(const Fixture& fixture, const std::string& connectivity,
                            const TokenBatch& tokens, const PipelineOptions& options) {
  const ModelConfig& model = fixture.config();
  const std::vector<PlannedStep> steps = plan_stages(fixture, connectivity, tokens, options);
  const Placement placement = Placement::contiguous(model.router.experts, options.ranks);
  std::vector<int> all(options.ranks);
  std::iota(all.begin(), all.end(), 0);
  const std::vector<Weights> weights =
      load_weights(fixture.checkpoint, model, placement, all, at::kFloat);
  const std::vector<StageRank> places = make_local_stages(
      options.stages, options.ranks, {.deadline = std::chrono::duration<double>(20)});
  std::vector<std::vector<Group*>> groups;
  for (const StageRank& place : places) {
    groups.push_back({place.within.get(), place.between.get()});
  }
  const std::vector<Range> shares = distribute(tokens.batch(), options.ranks);
  const KernelTable kernels = step_kernels();
  std::vector<Weights> gradients(places.size());
  PipelineResult result;
  result.ranks.resize(places.size());
  run_ranks(groups, [&](size_t i) {
    const int rank = places[i].within->rank(), stage = places[i].between->rank();
    const PlannedStep& step = steps[stage];
    for (const Value& value : step.graph.values()) {
      if (value.kind != ValueKind::gradient || gradients[i].count(value.name) != 0) continue;
      gradients[i][value.name] = at::full(weights[rank].at(value.name).sizes(),
                                          std::numeric_limits<float>::quiet_NaN(), at::kFloat);
    }
    RoutingState state;
    Executor executor(model, placement, step.graph, kernels, weights[rank], *places[i].within,
                      {.state = &state,
                       .gradients = &gradients[i],
                       .stages = places[i].between.get(),
                       .chaos_seed = options.chaos_seed});
    result.ranks[i] = executor.run(step.schedule, batch_of(tokens, shares[rank]));
  });
  for (size_t i = 0; i < places.size(); ++i) {
    for (const auto& [name, gradient] : gradients[i]) result.gradients[name].push_back(gradient);
    const Graph& graph = steps[places[i].between->rank()].graph;
    size_t micro_batch = 0;
    for (size_t output = 0; output < graph.outputs().size(); ++output) {
      const std::string& name = graph.value(graph.outputs()[output]).name;
      const at::Tensor& value = result.ranks[i].outputs[output];
      if (name == step_outputs::loss) {
        result.losses.push_back(value);
      } else if (name == step_outputs::router_losses) {
        result.router_losses.push_back(value);
      } else if (places[i].within->rank() == 0) {  // of all ranks
        add_loads(result.expert_loads, micro_batch++, value);
      }
    }
  }
  return result;
}

void expect_same(const std::vector<at::Tensor>& expected, const std::vector<at::Tensor>& found) {
  ASSERT_EQ(expected.size(), found.size());
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_TRUE(at::equal(expected[i], found[i])) << i;
}

void expect_same_step(const PipelineResult& expected, const PipelineResult& found) {
  expect_same(expected.losses, found.losses);
  expect_same(expected.router_losses, found.router_losses);
  expect_same(expected.expert_loads, found.expert_loads);
  ASSERT_EQ(expected.gradients.size(), found.gradients.size());
  for (const auto& [name, gradient] : expected.gradients) {
    SCOPED_TRACE(name);
    expect_same(gradient, found.gradients.at(name));
  }
}

const std::vector<int64_t> lengths = {48, 17, 5, 33, 9, 48, 2, 21};

class PipelineBits : public ::testing::TestWithParam<const char*> {};

TEST_P(PipelineBits, StagesChangeNone) {
  const Fixture fixture(GetParam());
  const TokenBatch tokens = fixture.prefixes(lengths);
  for (const char* preset : presets) {
    for (const auto& [ranks, micro_batches] : {std::pair{1, 1}, {1, 4}, {2, 3}}) {
      const PipelineResult whole =
          run_pipeline(fixture, preset, tokens,
                       {.ranks = ranks,
                        .micro_batches = micro_batches,
                        .form = {.schedule = "blocking", .goal = StepGoal::gradients}});
      for (int stages : {2, 4}) {
        if (stages > fixture.config().layer_count()) continue;
        SCOPED_TRACE(std::string(preset) + ", " + std::to_string(ranks) + " ranks, " +
                     std::to_string(micro_batches) + " micro-batches, " + std::to_string(stages) +
                     " stages");
        expect_same_step(
            whole,
            run_pipeline(fixture, preset, tokens,
                         {.stages = stages, .ranks = ranks, .micro_batches = micro_batches}));
      }
    }
  }
}

// The graph of one stage is that of the whole step, its micro-batches steps that add up.
TEST(Pipeline, OneStageIsTheStepWithoutACut) {
  const Fixture fixture("deepseek_v3");
  const TokenBatch tokens = fixture.prefixes(lengths);
  const int ranks = 2;
  const StepForm form{.schedule = "overlapped", .goal = StepGoal::gradients};
  const BackwardResult expected =
      run_backward(fixture, fixture.plan("farskip", ranks, tokens, form), tokens, ranks);
  const PipelineResult found = run_pipeline(fixture, "farskip", tokens, {.ranks = ranks});
  EXPECT_TRUE(at::equal(expected.loss, found.losses[0] + found.losses[1]));
  for (const auto& [name, gradient] : expected.gradients) {
    const std::vector<at::Tensor>& parts = found.gradients.at(name);
    const bool of_experts = parts[0].sizes() != gradient.sizes();
    EXPECT_TRUE(at::equal(gradient, of_experts ? at::cat(parts) : parts[0] + parts[1])) << name;
  }
}

TEST(Pipeline, MicroBatchesAddUp) {
  const Fixture fixture("deepseek_v2");
  const TokenBatch tokens = fixture.prefixes(lengths);
  const PipelineResult once = run_pipeline(fixture, "farskip", tokens, {.stages = 2});
  const PipelineResult parts =
      run_pipeline(fixture, "farskip", tokens, {.stages = 2, .micro_batches = 4});
  ASSERT_EQ(parts.losses.size(), 4u);
  const at::Tensor loss = parts.losses[0] + parts.losses[1] + parts.losses[2] + parts.losses[3];
  EXPECT_LT(relative_error(loss, once.losses[0]), 1e-6);
  for (const auto& [name, gradient] : once.gradients) {
    EXPECT_LT(relative_error(parts.gradients.at(name)[0], gradient[0]), 1e-5) << name;
  }
}

TEST(Pipeline, SchedulesRewritesAndChaosChangeNone) {
  const Fixture fixture("deepseek_v3");
  const TokenBatch tokens = fixture.prefixes(lengths);
  auto run = [&](int stages, const StepForm& form, std::optional<uint64_t> chaos = {}) {
    return run_pipeline(
        fixture, "depth-2", tokens,
        {.stages = stages, .ranks = 2, .micro_batches = 3, .form = form, .chaos_seed = chaos});
  };
  StepForm form{.schedule = "blocking", .goal = StepGoal::gradients};
  const PipelineResult whole = run(1, form);
  for (const char* schedule : {"blocking", "released", "overlapped"}) {
    form.schedule = schedule;
    SCOPED_TRACE(schedule);
    expect_same_step(whole, run(2, form, 5));
  }
  form.expert_chunks = form.pieces = 2;
  form.recompute = RecomputeKind::all;
  expect_same_step(whole, run(2, form, 6));
  expect_same_step(whole, run(4, form));
}

TEST(Pipeline, RouterLossesAndExpertLoadsComeOutAsWithoutACut) {
  const Fixture fixture("deepseek_v2");
  const TokenBatch tokens = fixture.prefixes(lengths);
  const StepForm form{.schedule = "overlapped",
                      .goal = StepGoal::gradients,
                      .router_losses = {.balance = 0.3, .sequence_balance = 0.2, .z = 0.1}};
  auto run = [&](int stages) {
    return run_pipeline(fixture, "farskip", tokens,
                        {.stages = stages, .ranks = 2, .micro_batches = 2, .form = form});
  };
  const PipelineResult whole = run(1);
  ASSERT_EQ(whole.router_losses.size(), 4u);
  ASSERT_EQ(whole.expert_loads.size(), 2u);
  EXPECT_GT(whole.router_losses[0].min().item<float>(), 0);
  for (int stages : {2, 4}) expect_same_step(whole, run(stages));
}

TEST(Pipeline, ForwardStepsAreCutToo) {
  const Fixture fixture("qwen3_moe");
  const TokenBatch tokens = fixture.prefixes(lengths);
  auto losses = [&](int stages) {
    return run_pipeline(fixture, "fresh-shared", tokens,
                        {.stages = stages,
                         .ranks = 2,
                         .form = {.schedule = "overlapped", .goal = StepGoal::loss}})
        .losses;
  };
  const std::vector<at::Tensor> whole = losses(1);
  ASSERT_EQ(whole.size(), 2u);
  for (int stages : {2, 4}) expect_same(whole, losses(stages));
}

INSTANTIATE_TEST_SUITE_P(Families, PipelineBits,
                         ::testing::Values("deepseek_v2", "deepseek_v3", "qwen3_moe", "olmoe",
                                           "mixtral"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace farskip::testing
