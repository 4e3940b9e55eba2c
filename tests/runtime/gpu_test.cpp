#include "../gpu.h"

#include <ATen/cuda/Sleep.h>
#include <ATen/ops/equal.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>

#include "farskip/comm/chaos.h"
#include "farskip/comm/local.h"
#include "farskip/trace/metrics.h"
#include "fixture.h"
#include "stand_in.h"

// The executor on a GPU, rank threads sharing it.
namespace farskip::testing {
namespace {

constexpr double tolerance = 5e-5;

class OnGpu : public GpuTest {
 protected:
  static std::vector<std::unique_ptr<Group>> groups(int ranks) {
    return make_local_groups(
        ranks, {.deadline = std::chrono::duration<double>(30), .device = at::Device(at::kCUDA, 0)});
  }
};

class GpuFamilies : public OnGpu, public ::testing::WithParamInterface<const char*> {};

TEST_P(GpuFamilies, GoldenLogitsAndChosenExperts) {
  const Fixture fixture(GetParam());
  const TokenBatch tokens = fixture.golden_tokens();
  for (int ranks : {1, 2, 4}) {
    Session session = fixture.session(ranks, at::kFloat, groups(ranks));
    for (const char* preset : {"standard", "farskip", "attention-only", "mlp-only", "last-2",
                               "fresh-shared", "ladder", "depth-2"}) {
      const std::string name = "logits_last." + std::string(preset);
      if (!fixture.golden.contains(name)) continue;
      SCOPED_TRACE(std::string(preset) + " on " + std::to_string(ranks));
      const PlannedStep step =
          fixture.plan(preset, ranks, tokens, {.schedule = ranks == 1 ? "blocking" : "overlapped"});
      const ForwardResult result = session.run(step, tokens, {.record_routing = true});
      const at::Tensor logits = result.logits().cpu();
      const at::Tensor last = logits.view({2, -1, logits.size(1)}).select(1, -1);
      EXPECT_LT(relative_error(last, fixture.golden.view(name)), tolerance);
      for (const auto& [layer, routing] : result.routing) {
        const at::Tensor expected = fixture.golden.view("experts." + std::string(preset) +
                                                        ".layers." + std::to_string(layer - 1));
        EXPECT_TRUE(
            at::equal(routing.experts.cpu().to(at::kLong), expected.flatten(0, 1).to(at::kLong)))
            << "layer " << layer;
      }
    }
  }
}

// Rows travel once to a rank and are summed there; in FP8 they are near.
TEST_P(GpuFamilies, PerRankDispatchIsGolden) {
  const Fixture fixture(GetParam());
  const TokenBatch tokens = fixture.golden_tokens();
  const at::Tensor expected = fixture.golden.view("logits_last.farskip");
  for (int ranks : {2, 3}) {
    Session session = fixture.session(ranks, at::kFloat, groups(ranks));
    for (const int chunks : {1, 2}) {
      const auto last = [&](bool fp8) {
        const StepForm form{.schedule = "overlapped",
                            .expert_chunks = chunks,
                            .dispatch = DispatchForm::per_rank,
                            .fp8_wire = fp8,
                            .head = HeadRows::last_of_sequence};
        return session.run(fixture.plan("farskip", ranks, tokens, form), tokens).logits().cpu();
      };
      EXPECT_LT(relative_error(last(false), expected), tolerance) << ranks << " x " << chunks;
      const at::Tensor near = last(true);
      EXPECT_LT(((near - expected).norm() / expected.norm()).item<double>(), 0.2);
    }
  }
}

TEST_P(GpuFamilies, Bfloat16IsNearTheCpu) {
  const Fixture fixture(GetParam());
  const TokenBatch tokens = fixture.golden_tokens();
  const StepForm form{.schedule = "overlapped", .dtype = at::kBFloat16};
  Session session = fixture.session(2, at::kBFloat16, groups(2));
  Session host = fixture.session(2, at::kBFloat16);
  const PlannedStep step = fixture.plan("farskip", 2, tokens, form);
  const at::Tensor expected = host.run(step, tokens).logits();
  const at::Tensor logits = session.run(step, tokens).logits().cpu();
  // Few rows may take other experts where two scores are near.
  EXPECT_LT(((logits - expected).norm() / expected.norm()).item<double>(), 0.1);
}

class GpuForms : public OnGpu,
                 public ::testing::WithParamInterface<std::tuple<const char*, DispatchForm, bool>> {
};

TEST_P(GpuForms, SchedulesAndDelaysChangeNoBit) {
  const auto& [family, dispatch, fp8] = GetParam();
  const Fixture fixture(family);
  const TokenBatch tokens = fixture.prefixes({48, 17, 5, 33, 1, 48, 2});
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (int ranks : {1, 3, 8}) {
      if (ranks > fixture.config().router.experts) continue;
      Session session = fixture.session(ranks, dtype, groups(ranks));
      for (const int chunks : {1, 2}) {
        if (chunks * ranks > fixture.config().router.experts) continue;
        const auto run = [&](const std::string& schedule, RunOptions options = {}) {
          const StepForm form{.schedule = schedule,
                              .expert_chunks = chunks,
                              .pieces = chunks,
                              .dispatch = dispatch,
                              .fp8_wire = fp8,
                              .dtype = dtype};
          return session.run(fixture.plan("farskip", ranks, tokens, form), tokens, options)
              .logits();
        };
        const at::Tensor expected = run("blocking");
        EXPECT_TRUE(at::equal(expected, run("overlapped"))) << ranks << " ranks";
        EXPECT_TRUE(at::equal(expected, run("released"))) << ranks << " ranks";
        EXPECT_TRUE(at::equal(expected, run("overlapped", {.chaos_seed = 7}))) << ranks;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Families, GpuForms,
    ::testing::Combine(::testing::Values("deepseek_v3", "qwen3_moe", "mixtral"),
                       ::testing::Values(DispatchForm::per_expert, DispatchForm::per_rank),
                       ::testing::Bool()),
    [](const auto& info) {
      const bool per_rank = std::get<1>(info.param) == DispatchForm::per_rank;
      return std::string(std::get<0>(info.param)) + (per_rank ? "_per_rank" : "_per_expert") +
             (std::get<2>(info.param) ? "_fp8" : "");
    });

INSTANTIATE_TEST_SUITE_P(Families, GpuFamilies,
                         ::testing::Values("deepseek_v2", "deepseek_v2_full", "deepseek_v3",
                                           "deepseek_v3_lite", "qwen3_moe", "olmoe", "mixtral"),
                         [](const auto& info) { return std::string(info.param); });

TEST_F(OnGpu, TwoBatchesAndRaggedRowsAreGolden) {
  const Fixture fixture("deepseek_v3");
  const std::vector<int64_t> lengths = {17, 48, 1, 5, 33};
  const TokenBatch tokens = fixture.prefixes(lengths);
  const at::Tensor expected =
      fixture.golden_prefixes(fixture.golden.view("logits.farskip"), lengths);
  Session session = fixture.session(3, at::kFloat, groups(3));
  for (const bool two_batch : {false, true}) {
    const StepForm form{
        .schedule = "overlapped", .two_batch = two_batch, .expert_chunks = 2, .pieces = 2};
    const PlannedStep step = fixture.plan("farskip", 3, tokens, form);
    EXPECT_LT(relative_error(session.run(step, tokens).logits().cpu(), expected), tolerance);
  }
}

TEST_F(OnGpu, ChaosOfTheGroupsChangesNoBit) {
  const Fixture fixture("deepseek_v2");
  const TokenBatch tokens = fixture.golden_tokens();
  const PlannedStep step = fixture.plan("farskip", 2, tokens, {.schedule = "overlapped"});
  Session plain = fixture.session(2, at::kFloat, groups(2));
  const at::Tensor expected = plain.run(step, tokens).logits();
  for (const uint64_t seed : {1, 2}) {
    Session chaos = fixture.session(2, at::kFloat, make_chaos(groups(2), seed));
    EXPECT_TRUE(at::equal(expected, chaos.run(step, tokens, {.chaos_seed = seed}).logits()));
  }
}

// libtorch throws in this mode where it would make the host wait for the device.
struct NoWaits {
  NoWaits() { set(c10::cuda::SyncDebugMode::L_ERROR); }
  ~NoWaits() { set(c10::cuda::SyncDebugMode::L_DISABLED); }
  static void set(c10::cuda::SyncDebugMode mode) {
    c10::cuda::warning_state().set_sync_debug_mode(mode);
  }
};

// The executor's own waits are counted.
TEST_F(OnGpu, TheHostWaitsOnlyForCountsAndTheEnd) {
  const Fixture fixture("deepseek_v3");
  const TokenBatch tokens = fixture.prefixes({48, 48, 48, 48});
  StandIn rank(fixture, at::kBFloat16);
  const Batch batch = batch_of(tokens, {0, 1});
  int routed = 0;
  for (const auto& layer : fixture.config().layers) routed += layer.routed;
  for (const char* schedule : {"blocking", "overlapped"}) {
    for (const int chunks : {1, 2}) {
      const PlannedStep step = rank.plan(
          tokens, {.schedule = schedule, .expert_chunks = chunks, .dtype = at::kBFloat16});
      const auto executor = rank.executor(step);
      executor->run(step.schedule, batch);  // what is made once may wait
      // Recorded, then as recorded.
      for (int i = 0; i < 2; ++i) {
        std::optional<StepResult> result;
        {
          const NoWaits no_waits;
          EXPECT_NO_THROW(result = executor->run(step.schedule, batch));
        }
        ASSERT_TRUE(result);
        EXPECT_LE(result->host_waits, routed + 1) << schedule << ", chunks " << chunks;
        EXPECT_GT(result->layers_host_seconds, 0);
        EXPECT_GT(result->host_seconds, result->layers_host_seconds);
      }
    }
  }
}

// Training once began with weights that were still on their way.
TEST_F(OnGpu, StepsRunBehindWhatTheirCallerQueued) {
  const Fixture fixture("deepseek_v3");
  const TokenBatch tokens = fixture.prefixes({48, 48, 48, 48});
  StandIn rank(fixture, at::kFloat);
  const Batch batch = batch_of(tokens, {0, 1});
  const PlannedStep step = rank.plan(tokens, {.schedule = "overlapped"});
  const auto executor = rank.executor(step);
  const at::Tensor expected = executor->run(step.schedule, batch).outputs[0].clone();
  for (int i = 0; i < 3; ++i) {  // the last ones are recorded
    Weights right;
    for (const auto& [name, tensor] : rank.weights()) {
      right[name] = tensor.clone();
      tensor.zero_();
    }
    at::cuda::sleep(100'000'000);  // clocks: some 60 ms
    for (const auto& [name, tensor] : rank.weights()) tensor.copy_(right[name]);
    EXPECT_TRUE(at::equal(executor->run(step.schedule, batch).outputs[0], expected)) << i;
  }
}

Kernel plain_permute = nullptr;

void permute_slowly(const KernelContext& context, Inputs in, Outputs out) {
  at::cuda::sleep(10'000'000);  // clocks: some 6 ms
  plain_permute(context, in, out);
}

// Gradients once went to other ranks before the last of them was there.
TEST_F(OnGpu, CollectivesStartBehindAllThatTheyWaitFor) {
  const Fixture fixture("deepseek_v3");
  const TokenBatch tokens = fixture.prefixes({48, 48, 48, 48});
  StandIn rank(fixture, at::kFloat);
  const PlannedStep step = rank.plan(tokens, {.schedule = "overlapped"});
  const Batch batch = batch_of(tokens, {0, 1});
  const at::Tensor expected = rank.executor(step)->run(step.schedule, batch).outputs[0].clone();
  Schedule schedule = step.schedule;
  const OpId early = schedule.steps.front().op;
  for (Step& each : schedule.steps) {
    if (each.lane != Lane::communication || each.wait_for.empty()) continue;
    each.wait_for.insert(each.wait_for.begin(), early);
  }
  verify(step.graph, schedule);
  plain_permute = rank.replace_kernel(step.graph, OpKind::permute, permute_slowly);
  const auto executor = rank.executor(step);
  for (int i = 0; i < 3; ++i) {  // the last ones are recorded
    EXPECT_TRUE(at::equal(executor->run(schedule, batch).outputs[0], expected)) << i;
  }
}

// It computes beside all that it would wait for, and nothing of that stays.
TEST_F(OnGpu, AStepThatNeverWaitsLeavesNothingBehind) {
  const Fixture fixture("deepseek_v3");
  const TokenBatch tokens = fixture.prefixes({48, 48, 48, 48});
  StandIn rank(fixture, at::kBFloat16, /*bytes_per_second=*/1e7);
  const PlannedStep step = rank.plan(
      tokens, {.schedule = "blocking", .routing = RoutingMode::balanced, .dtype = at::kBFloat16});
  const auto executor = rank.executor(step);
  Batch batch = batch_of(tokens, {0, 1});
  const auto run = [&](bool never_waits) {
    batch.never_waits = never_waits;
    return executor->run(step.schedule, batch);
  };
  const StepResult whole = run(false);
  EXPECT_EQ(measure_overlap(whole.timeline).overlapped, 0);
  for (int i = 0; i < 2; ++i) {
    const StepResult hurried = run(true);
    EXPECT_GT(measure_overlap(hurried.timeline).overlapped, 0);
    EXPECT_EQ(hurried.timeline.spans.size(), whole.timeline.spans.size());
    EXPECT_EQ(hurried.traffic.bytes_sent, whole.traffic.bytes_sent);
    const StepResult after = run(false);
    EXPECT_EQ(measure_overlap(after.timeline).overlapped, 0);
    EXPECT_TRUE(at::equal(after.outputs[0], whole.outputs[0]));
  }
}

// A stand-in's results mean nothing, but every schedule gives the same ones.
TEST_F(OnGpu, OneRankStandsForFour) {
  const Fixture fixture("qwen3_moe");
  const TokenBatch tokens = fixture.prefixes({48, 48, 48, 48});
  std::vector<LoopbackPath> paths = {LoopbackPath::device, LoopbackPath::pcie};
  if (c10::impl::VirtualGuardImpl(at::kCUDA).deviceCount() > 1) paths.push_back(LoopbackPath::peer);
  for (const LoopbackPath path : paths) {
    std::vector<std::unique_ptr<Group>> one;
    one.push_back(stand_in_group(path));
    Session session(fixture.config(), stand_in_placement(fixture),
                    stand_in_weights(fixture, at::kFloat), std::move(one));
    for (const auto dispatch : {DispatchForm::per_expert, DispatchForm::per_rank}) {
      const auto run = [&](const char* schedule, int chunks) {
        const StepForm form{.schedule = schedule, .expert_chunks = chunks, .dispatch = dispatch};
        return session.run(fixture.plan("farskip", 4, tokens, form), tokens).logits().cpu();
      };
      const at::Tensor expected = run("blocking", 1);
      EXPECT_TRUE(at::equal(expected, run("overlapped", 1)));
      EXPECT_EQ(run("overlapped", 2).sizes(), expected.sizes());
    }
  }
}

}  // namespace
}  // namespace farskip::testing
