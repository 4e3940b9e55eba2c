#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <stdexcept>

#include "../gpu.h"
#include "farskip/comm/local.h"
#include "farskip/runtime/session.h"
#include "farskip/runtime/shared_lane.h"
#include "stand_in.h"

// Steps that are launched as recorded compute what others do.
namespace farskip::testing {
namespace {

using Recorded = GpuTest;

at::Tensor logits_of(const StepResult& result) { return at::cat(result.outputs).cpu(); }

TEST_F(Recorded, StepsHaveTheBitsOfOthers) {
  for (const char* family : {"deepseek_v3", "qwen3_moe"}) {
    const Fixture fixture(family);
    const TokenBatch tokens = fixture.prefixes({48, 17, 48, 5});
    StandIn rank(fixture, at::kBFloat16);
    const Batch batch = batch_of(tokens, {0, 2});
    for (const char* schedule : {"blocking", "released", "overlapped"}) {
      for (const bool two_batch : {false, true}) {
        for (const int parts : {1, 2}) {
          SCOPED_TRACE(std::string(family) + ", " + schedule + ", " + std::to_string(parts));
          const PlannedStep step = rank.plan(tokens, {.schedule = schedule,
                                                      .two_batch = two_batch,
                                                      .expert_chunks = parts,
                                                      .pieces = parts,
                                                      .dtype = at::kBFloat16});
          const auto plain = rank.executor(step, {.records = false});
          const at::Tensor expected = logits_of(plain->run(step.schedule, batch));
          const auto recording = rank.executor(step);
          for (int i = 0; i < 4; ++i) {
            EXPECT_TRUE(at::equal(logits_of(recording->run(step.schedule, batch)), expected)) << i;
          }
        }
      }
    }
  }
}

// Collectives that read what recorded ops made are still under way when later ones run.
TEST_F(Recorded, StepsHaveTheBitsOfOthersBesideASlowLink) {
  const Fixture fixture("deepseek_v3");
  const TokenBatch tokens = fixture.prefixes({48, 17, 48, 5});
  StandIn rank(fixture, at::kBFloat16, 3e7);
  const Batch batch = batch_of(tokens, {0, 2});
  for (const int chunks : {1, 2}) {
    for (const DispatchForm dispatch : {DispatchForm::per_expert, DispatchForm::per_rank}) {
      SCOPED_TRACE(std::to_string(chunks) + " chunks, " + to_string(dispatch));
      const PlannedStep step = rank.plan(tokens, {.schedule = "overlapped",
                                                  .expert_chunks = chunks,
                                                  .dispatch = dispatch,
                                                  .dtype = at::kBFloat16});
      const auto plain = rank.executor(step, {.records = false});
      const at::Tensor expected = logits_of(plain->run(step.schedule, batch));
      const auto recording = rank.executor(step);
      for (int i = 0; i < 6; ++i) {
        EXPECT_TRUE(at::equal(logits_of(recording->run(step.schedule, batch)), expected)) << i;
      }
    }
  }
}

// All of its layers are one stretch, which uses again what it no longer needs.
TEST_F(Recorded, StepsOfARankWithAllExpertsHaveTheBitsOfOthers) {
  for (const char* family : {"deepseek_v3", "qwen3_moe"}) {
    SCOPED_TRACE(family);
    const Fixture fixture(family);
    const TokenBatch tokens = fixture.prefixes({48, 17, 48, 5});
    Session session = fixture.session(1, at::kBFloat16,
                                      make_local_groups(1, {.device = at::Device(at::kCUDA, 0)}));
    const PlannedStep step =
        fixture.plan("farskip", 1, tokens, {.schedule = "overlapped", .dtype = at::kBFloat16});
    const PlannedStep* const only = &step;
    const auto plain = session.run(std::span(&only, 1), tokens, {.rounds = 1, .records = false});
    const auto recorded = session.run(std::span(&only, 1), tokens, {.rounds = 5});
    for (size_t i = 0; i < recorded.size(); ++i) {
      EXPECT_TRUE(at::equal(recorded[i][0].logits(), plain[0][0].logits())) << i;
    }
  }
}

// Other sequences and other schedules are no repetition.
TEST_F(Recorded, StepsChangeWithTheirBatchAndSchedule) {
  const Fixture fixture("deepseek_v3");
  const TokenBatch tokens = fixture.prefixes({48, 17, 48, 5});
  StandIn rank(fixture, at::kFloat);
  const PlannedStep step = rank.plan(tokens, {.schedule = "overlapped"});
  const PlannedStep blocking = rank.plan(tokens, {.schedule = "blocking"});
  const auto plain = rank.executor(step, {.records = false});
  const auto recording = rank.executor(step);
  const Batch batches[] = {batch_of(tokens, {0, 2}), batch_of(tokens, {1, 3}),
                           batch_of(tokens, {0, 0})};
  for (const int which : {0, 0, 0, 1, 1, 1, 0, 2, 2, 2, 2, 1, 1, 1}) {
    const Batch& batch = batches[which];
    EXPECT_TRUE(at::equal(logits_of(recording->run(step.schedule, batch)),
                          logits_of(plain->run(step.schedule, batch))))
        << which;
  }
  for (const Schedule* schedule : {&blocking.schedule, &blocking.schedule, &blocking.schedule,
                                   &step.schedule, &blocking.schedule}) {
    EXPECT_TRUE(at::equal(logits_of(recording->run(*schedule, batches[0])),
                          logits_of(plain->run(*schedule, batches[0]))));
  }
}

// A batch's numbers are read anew in every step.
TEST_F(Recorded, StepsReadTheirInputs) {
  const Fixture fixture("qwen3_moe");
  const TokenBatch tokens = fixture.prefixes({48, 48, 48, 48});
  StandIn rank(fixture, at::kFloat);
  const PlannedStep step = rank.plan(tokens, {.schedule = "overlapped"});
  const auto plain = rank.executor(step, {.records = false});
  const auto recording = rank.executor(step);
  Batch batch = batch_of(tokens, {0, 1});
  for (int i = 0; i < 5; ++i) {
    batch.inputs["input_ids"] = batch.inputs["input_ids"].roll(1);
    EXPECT_TRUE(at::equal(logits_of(recording->run(step.schedule, batch)),
                          logits_of(plain->run(step.schedule, batch))));
  }
}

// Routing sends a rank other numbers of rows in every step: fewer, more, more than there was room
// for.
TEST_F(Recorded, StepsHaveRoomForOtherNumbersOfRows) {
  for (const char* family : {"deepseek_v3", "qwen3_moe"}) {
    const Fixture fixture(family);
    const TokenBatch tokens = fixture.prefixes({48, 48, 48, 48});
    for (const double link : {0.0, 3e7}) {
      StandIn rank(fixture, at::kBFloat16, link);
      for (const int chunks : {1, 2}) {
        SCOPED_TRACE(std::string(family) + ", " + std::to_string(chunks) + " chunks");
        const PlannedStep step = rank.plan(
            tokens, {.schedule = "overlapped", .expert_chunks = chunks, .dtype = at::kBFloat16});
        const auto plain = rank.executor(step, {.records = false});
        const auto recording = rank.executor(step);
        Batch batch = batch_of(tokens, {0, 4});
        const at::Tensor mixed = batch.inputs["input_ids"];
        int64_t least = INT64_MAX, most = 0;
        for (const int id : {-1, -1, -1, 7, 7, -1, 3, 11, 19, -1, 23, 7}) {
          batch.inputs["input_ids"] = mixed.clone();
          // Some tokens stay as they are, so that every rank has something to send.
          if (id >= 0) batch.inputs["input_ids"].narrow(0, 0, 150).fill_(id);
          const StepResult result = recording->run(step.schedule, batch);
          EXPECT_TRUE(at::equal(logits_of(result), logits_of(plain->run(step.schedule, batch))))
              << id;
          least = std::min(least, result.traffic.bytes_received);
          most = std::max(most, result.traffic.bytes_received);
        }
        EXPECT_GT(most, least * 5 / 4) << "room for an eighth more would do";
      }
    }
  }
}

Kernel plain_attention = nullptr;
int refusals = 0;

void refuse_to_be_recorded(const KernelContext& context, Inputs in, Outputs out) {
  if (c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None) {
    ++refusals;
    throw std::runtime_error("not while recording");
  }
  plain_attention(context, in, out);
}

TEST_F(Recorded, StepsGoOnWhereRecordingFails) {
  const Fixture fixture("deepseek_v3");
  const TokenBatch tokens = fixture.prefixes({48, 48, 48, 48});
  StandIn rank(fixture, at::kFloat);
  const PlannedStep step = rank.plan(tokens, {.schedule = "overlapped"});
  const Batch batch = batch_of(tokens, {0, 1});
  const auto plain = rank.executor(step, {.records = false});
  const StepResult expected = plain->run(step.schedule, batch);
  plain_attention = rank.replace_kernel(step.graph, OpKind::attention_core, refuse_to_be_recorded);
  const auto refusing = rank.executor(step);
  for (int i = 0; i < 5; ++i) {
    const StepResult result = refusing->run(step.schedule, batch);
    EXPECT_TRUE(at::equal(logits_of(result), logits_of(expected))) << i;
    EXPECT_EQ(result.timeline.spans.size(), expected.timeline.spans.size());
  }
  EXPECT_EQ(refusals, 1) << "it is tried once";
}

// In turn, as the variants of a comparison run.
TEST_F(Recorded, StepsOfSeveralExecutorsShareMemory) {
  const Fixture fixture("deepseek_v3");
  const TokenBatch tokens = fixture.prefixes({48, 17, 48, 5});
  StandIn rank(fixture, at::kBFloat16);
  const Batch batch = batch_of(tokens, {0, 2});
  SharedLane shared(at::Device(at::kCUDA, 0));
  std::vector<PlannedStep> steps;
  for (const int parts : {1, 2}) {
    steps.push_back(rank.plan(tokens, {.schedule = "overlapped",
                                       .expert_chunks = parts,
                                       .pieces = parts,
                                       .dtype = at::kBFloat16}));
  }
  // What stands in for other ranks' rows depends on chunks.
  std::vector<at::Tensor> expected;
  std::vector<std::unique_ptr<Executor>> executors;
  for (const PlannedStep& step : steps) {
    expected.push_back(
        logits_of(rank.executor(step, {.records = false})->run(step.schedule, batch)));
    executors.push_back(rank.executor(step, {.shared = &shared}));
  }
  for (int round = 0; round < 5; ++round) {
    for (size_t i = 0; i < steps.size(); ++i) {
      EXPECT_TRUE(at::equal(logits_of(executors[i]->run(steps[i].schedule, batch)), expected[i]))
          << i << " in round " << round;
    }
  }
}

// libtorch gives memory that one stream is through with to no other stream.
TEST_F(Recorded, ExecutorsThatShareALaneTakeNoMoreMemoryThanOne) {
  const Fixture fixture("deepseek_v3");
  const TokenBatch tokens = fixture.prefixes({48, 48, 48, 48});
  StandIn rank(fixture, at::kBFloat16);
  const PlannedStep step = rank.plan(
      tokens, {.schedule = "overlapped", .routing = RoutingMode::balanced, .dtype = at::kBFloat16});
  const Batch batch = batch_of(tokens, {0, 1});
  const auto reserved = [] {
    return c10::cuda::CUDACachingAllocator::getDeviceStats(0).reserved_bytes[0].current;
  };
  c10::cuda::CUDACachingAllocator::emptyCache();
  const int64_t before = reserved();
  SharedLane shared(at::Device(at::kCUDA, 0));
  std::vector<std::unique_ptr<Executor>> executors;
  int64_t of_one = 0;
  for (int i = 0; i < 6; ++i) {
    executors.push_back(rank.executor(step, {.shared = &shared}));
    for (int run = 0; run < 3; ++run) executors.back()->run(step.schedule, batch);
    if (i == 0) of_one = reserved() - before;
  }
  EXPECT_GT(of_one, 0);
  EXPECT_LT(reserved() - before, 2 * of_one);
}

TEST_F(Recorded, OpsHaveTheirTimes) {
  const Fixture fixture("deepseek_v3");
  const TokenBatch tokens = fixture.prefixes({48, 48, 48, 48});
  StandIn rank(fixture, at::kBFloat16);
  const PlannedStep step = rank.plan(tokens, {.schedule = "overlapped", .dtype = at::kBFloat16});
  const auto executor = rank.executor(step);
  const Batch batch = batch_of(tokens, {0, 1});
  const size_t spans = executor->run(step.schedule, batch).timeline.spans.size();
  for (int i = 0; i < 3; ++i) {
    const Timeline timeline = executor->run(step.schedule, batch).timeline;
    EXPECT_EQ(timeline.spans.size(), spans);
    std::map<int, Span> by_op;
    for (const Span& span : timeline.spans) {
      EXPECT_GE(span.start, 0) << span.name;
      EXPECT_GE(span.end, span.start) << span.name;
      EXPECT_LE(span.end, timeline.step_seconds) << span.name;
      by_op[span.op] = span;
    }
    double end = 0;
    for (const Step& launched : step.schedule.steps) {
      if (launched.lane != Lane::compute || !by_op.contains(launched.op)) continue;
      EXPECT_GE(by_op[launched.op].start, end - 1e-6) << by_op[launched.op].name;
      end = by_op[launched.op].end;
    }
  }
}

}  // namespace
}  // namespace farskip::testing
