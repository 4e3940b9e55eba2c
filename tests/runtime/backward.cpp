#include "backward.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "farskip/comm/local.h"
#include "farskip/comm/ranks.h"
#include "farskip/graph/step_outputs.h"
#include "farskip/io/naming.h"
#include "farskip/runtime/kernels.h"

namespace farskip::testing {
namespace {

constexpr double loss_tolerance = 2e-5, gradient_tolerance = 1e-4;

size_t golden_gradients(const Fixture& fixture, const std::string& preset) {
  return std::ranges::count_if(fixture.golden.tensors(), [&](const StoredTensor& tensor) {
    return tensor.name.starts_with("grad." + preset + ".");
  });
}

// Not-a-number where no kernel has written.
Weights empty_gradients(const Weights& weights, at::ScalarType dtype) {
  Weights gradients;
  for (const auto& [name, tensor] : weights) {
    gradients[name] = at::full(tensor.sizes(), std::numeric_limits<double>::quiet_NaN(),
                               tensor.options().dtype(dtype));
  }
  return gradients;
}

void add_output(BackwardResult& result, const std::string& name, const at::Tensor& output) {
  if (name == step_outputs::expert_loads) {  // of all ranks already
    result.expert_loads = output;
    return;
  }
  at::Tensor& sum = name == step_outputs::loss ? result.loss : result.router_losses;
  sum = sum.defined() ? sum + output : output;
}

}  // namespace

BackwardResult run_backward(const Fixture& fixture, const PlannedStep& step,
                            const TokenBatch& tokens, int ranks, const BackwardOptions& options,
                            at::ScalarType dtype, at::ScalarType gradient_dtype,
                            std::vector<std::unique_ptr<Group>> groups) {
  const ModelConfig& config = fixture.config();
  const Placement placement = Placement::contiguous(config.router.experts, ranks);
  std::vector<int> all(ranks);
  std::iota(all.begin(), all.end(), 0);
  std::vector<Weights> weights = load_weights(fixture.checkpoint, config, placement, all, dtype);
  if (options.change_weights) std::ranges::for_each(weights, options.change_weights);
  if (groups.empty()) {
    groups = make_local_groups(ranks, {.deadline = std::chrono::duration<double>(20)});
  }
  const std::vector<Range> shares = distribute(tokens.batch(), ranks);
  const KernelTable kernels = step_kernels();
  std::vector<Weights> gradients;
  for (Weights& of_rank : weights) {
    for (auto& [name, tensor] : of_rank) tensor = tensor.to(groups[0]->device());
    gradients.push_back(empty_gradients(of_rank, gradient_dtype));
  }
  BackwardResult result;
  result.ranks.resize(ranks);
  run_ranks(groups, [&](Group& group) {
    const int rank = group.rank();
    RoutingState state;
    Executor executor(config, placement, step.graph, kernels, weights[rank], group,
                      {.state = &state,
                       .gradients = &gradients[rank],
                       .chaos_seed = options.chaos_seed,
                       .records = options.records});
    Batch batch = batch_of(tokens, shares[rank]);
    for (int i = 0; i < options.repeats; ++i) {
      batch.adds_gradients = options.adds && i > 0;
      result.ranks[rank] = executor.run(step.schedule, batch);
    }
  });
  for (const StepResult& rank : result.ranks) {
    for (size_t i = 0; i < rank.outputs.size(); ++i) {
      add_output(result, step.graph.value(step.graph.outputs()[i]).name, rank.outputs[i].cpu());
    }
  }
  for (const WeightSpec& spec : weight_specs(config, placement, 0, dtype)) {
    if (spec.role == WeightRole::bias) continue;
    std::vector<at::Tensor> parts;
    for (const Weights& of_rank : gradients) parts.push_back(of_rank.at(spec.name).cpu());
    at::Tensor whole = parts[0];
    if (spec.of_experts()) {
      whole = at::cat(parts);
    } else {
      for (int rank = 1; rank < ranks; ++rank) whole = whole + parts[rank];
    }
    result.gradients[spec.name] = whole;
  }
  return result;
}

void expect_golden_gradients(const Fixture& fixture, int ranks, const GroupFactory& groups) {
  const TokenBatch tokens = fixture.golden_tokens();
  for (const char* preset : {"standard", "farskip", "attention-only", "mlp-only", "last-2",
                             "fresh-shared", "ladder", "depth-2"}) {
    if (!fixture.golden.contains("loss." + std::string(preset))) continue;
    SCOPED_TRACE(std::string(preset) + " on " + std::to_string(ranks));
    const PlannedStep step = fixture.plan(
        preset, ranks, tokens,
        {.schedule = ranks == 1 ? "blocking" : "overlapped", .goal = StepGoal::gradients});
    const BackwardResult result =
        run_backward(fixture, step, tokens, ranks, {}, at::kFloat, at::kFloat, groups(ranks));
    EXPECT_LT(relative_error(result.loss, fixture.golden.view("loss." + std::string(preset))),
              loss_tolerance);
    size_t compared = 0;
    for (const auto& [name, gradient] : by_checkpoint_name(fixture, result.gradients)) {
      EXPECT_TRUE(gradient.isfinite().all().item<bool>()) << name;
      const std::string golden = "grad." + std::string(preset) + "." + name;
      if (!fixture.golden.contains(golden)) continue;
      ++compared;
      at::Tensor expected = fixture.golden.view(golden), found = gradient;
      // The oracle's embedding leaves the row of its padding token out.
      if (fixture.family == "olmoe" && name == "model.embed_tokens.weight") {
        EXPECT_EQ(expected[1].abs().max().item<float>(), 0.0f);
        found = found.clone();
        found[1].zero_();
      }
      EXPECT_LT(relative_error(found, expected), gradient_tolerance) << name;
    }
    EXPECT_EQ(compared, golden_gradients(fixture, preset));
  }
}

void expect_same_bits(const BackwardResult& expected, const BackwardResult& found) {
  EXPECT_TRUE(at::equal(expected.loss, found.loss));
  ASSERT_EQ(expected.gradients.size(), found.gradients.size());
  for (const auto& [name, gradient] : expected.gradients) {
    EXPECT_TRUE(at::equal(gradient, found.gradients.at(name))) << name;
  }
}

std::map<std::string, at::Tensor> by_checkpoint_name(const Fixture& fixture,
                                                     const Weights& gradients) {
  const ModelConfig& config = fixture.config();
  const CheckpointNaming naming(
      config, [&](const std::string& name) { return fixture.checkpoint.contains(name); });
  std::map<std::string, at::Tensor> named;
  auto split = [&](const at::Tensor& tensor, const std::vector<std::string>& names,
                   const std::vector<int64_t>& rows) {
    int64_t first = 0;
    for (size_t i = 0; i < names.size(); ++i) {
      named[names[i]] = tensor.narrow(0, first, rows[i]);
      first += rows[i];
    }
  };
  const Placement alone = Placement::contiguous(config.router.experts, 1);
  for (const WeightSpec& spec : weight_specs(config, alone, 0, at::kFloat)) {
    if (spec.role == WeightRole::bias) continue;
    const at::Tensor gradient = gradients.at(spec.name);
    if (!spec.of_experts()) {
      split(gradient, naming.sources(spec), spec.parts);
    } else if (naming.experts_fused(spec.layer)) {
      named[naming.fused_source(spec.layer, spec.role)] = gradient;
    } else {
      for (int expert = 0; expert < config.router.experts; ++expert) {
        split(gradient.select(0, expert), naming.expert_sources(spec.layer, spec.role, expert),
              spec.parts);
      }
    }
  }
  return named;
}

}  // namespace farskip::testing
