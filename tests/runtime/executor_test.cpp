#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <thread>

#include "farskip/comm/local.h"
#include "farskip/comm/ranks.h"
#include "farskip/runtime/kernels.h"
#include "farskip/schedule/memory.h"
#include "fixture.h"

namespace farskip::testing {
namespace {

class ExecutorTest : public ::testing::Test {
 protected:
  const Fixture fixture_{"olmoe"};
  const TokenBatch tokens_ = fixture_.golden_tokens();
};

TEST_F(ExecutorTest, TimelineHasEveryOpOnce) {
  Session session = fixture_.session(2);
  const PlannedStep step = fixture_.plan(
      "farskip", 2, tokens_, {.schedule = "overlapped", .expert_chunks = 2, .pieces = 2});
  const ForwardResult result = session.run(step, tokens_);
  for (const StepResult& rank : result.ranks) {
    std::set<int> seen;
    for (const Span& span : rank.timeline.spans) {
      EXPECT_TRUE(seen.insert(span.op).second);
      EXPECT_LE(0, span.posted);
      EXPECT_LE(span.posted, span.start);
      EXPECT_LE(span.start, span.end);
      EXPECT_LE(span.end, rank.timeline.step_seconds);
      EXPECT_EQ(span.lane, step.graph.op(span.op).lane);
    }
    for (const Op& op : step.graph.ops()) {
      EXPECT_EQ(seen.count(op.id), op.kind == OpKind::join ? 0u : 1u);
    }
  }
}

// Compute ops follow each other on the lane, in the order of the schedule.
TEST_F(ExecutorTest, ComputeRunsInScheduleOrder) {
  Session session = fixture_.session(1);
  const PlannedStep step = fixture_.plan("farskip", 1, tokens_, {.schedule = "released"});
  const Timeline timeline = session.run(step, tokens_).ranks[0].timeline;
  std::map<int, Span> spans;
  for (const Span& span : timeline.spans) spans[span.op] = span;
  double now = 0;
  for (const Step& launched : step.schedule.steps) {
    if (launched.lane != Lane::compute || !spans.count(launched.op)) continue;
    EXPECT_LE(now, spans[launched.op].start);
    now = spans[launched.op].end;
  }
}

TEST_F(ExecutorTest, TrafficIsThatOfTheCounts) {
  Session session = fixture_.session(2);
  const PlannedStep step = fixture_.plan("farskip", 2, tokens_);
  const ForwardResult result = session.run(step, tokens_);
  const int moe_layers = fixture_.config().moe_layer_count();
  int64_t sent = 0, received = 0;
  for (const StepResult& rank : result.ranks) {
    EXPECT_EQ(rank.traffic.collectives, 3 * moe_layers);
    sent += rank.traffic.bytes_sent;
    received += rank.traffic.bytes_received;
  }
  EXPECT_EQ(sent, received);
  EXPECT_GT(sent, 0);
  Session alone = fixture_.session(1);
  const PlannedStep single = fixture_.plan("farskip", 1, tokens_);
  EXPECT_EQ(alone.run(single, tokens_).ranks[0].traffic.bytes_sent, 0);
}

// On one rank the rows of dispatch are known, so the prediction is exact.
TEST_F(ExecutorTest, PeakMemoryIsThePredicted) {
  Session session = fixture_.session(1);
  for (int chunks : {1, 2}) {
    const PlannedStep step =
        fixture_.plan("farskip", 1, tokens_, {.schedule = "overlapped", .expert_chunks = chunks});
    const double peak =
        static_cast<double>(session.run(step, tokens_).ranks[0].peak_activation_bytes);
    const double predicted = peak_activation_bytes(step.graph, step.schedule);
    EXPECT_NEAR(peak, predicted, chunks == 1 ? 0.5 : 0.1 * predicted);
  }
}

TEST_F(ExecutorTest, MissingKernelIsNamedBeforeTheStep) {
  const PlannedStep step = fixture_.plan("farskip", 1, tokens_);
  const Placement placement = Placement::contiguous(fixture_.config().router.experts, 1);
  const std::vector<int> all = {0};
  const std::vector<Weights> weights =
      load_weights(fixture_.checkpoint, fixture_.config(), placement, all, at::kFloat);
  auto groups = make_local_groups(1);
  KernelTable table = step_kernels();
  table.add(OpKind::unpermute, KernelEntry{});
  try {
    Executor(fixture_.config(), placement, step.graph, table, weights[0], *groups[0]);
    FAIL() << "no error";
  } catch (const UnsupportedError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("unpermute"));
  }
}

TEST_F(ExecutorTest, AStepThatReducesIsUnsupported) {
  const ModelConfig& model = fixture_.config();
  const Connectivity connectivity = Connectivity::preset("farskip", model.layers);
  const KernelTable table = step_kernels();
  const Graph graph = build_forward(
      model, connectivity, {.form = ParallelForm::replicated_all_reduce, .ranks = 2, .tokens = 8});
  EXPECT_THROW(for (const Op& op : graph.ops()) table.find(op), UnsupportedError);
}

TEST_F(ExecutorTest, WrongWeightsInputsAndSchedules) {
  const PlannedStep step = fixture_.plan("farskip", 1, tokens_);
  const PlannedStep other = fixture_.plan("standard", 1, tokens_);
  const Placement placement = Placement::contiguous(fixture_.config().router.experts, 1);
  const std::vector<int> all = {0};
  Weights weights =
      load_weights(fixture_.checkpoint, fixture_.config(), placement, all, at::kFloat)[0];
  auto groups = make_local_groups(1);
  const KernelTable table = step_kernels();
  RoutingState state;
  {
    Executor executor(fixture_.config(), placement, step.graph, table, weights, *groups[0],
                      {.state = &state});
    const Batch batch = batch_of(tokens_, {0, 2});
    EXPECT_THROW(executor.run(other.schedule, batch), ScheduleError);
    Batch short_one = batch;
    short_one.inputs["positions"] = short_one.inputs["positions"].narrow(0, 0, 3);
    EXPECT_THROW(executor.run(step.schedule, short_one), Error);
    Batch empty_sequence = batch;
    empty_sequence.lengths = {96, 0};
    EXPECT_THROW(executor.run(step.schedule, empty_sequence), Error);
    Batch outside = batch;
    outside.inputs["input_ids"] = outside.inputs["input_ids"] + 100000;
    EXPECT_THROW(executor.run(step.schedule, outside), Error);
    EXPECT_EQ(executor.run(step.schedule, batch).outputs.at(0).size(0), 96);
  }
  weights["final_norm"] = at::zeros({3});
  auto make = [&] {
    Executor(fixture_.config(), placement, step.graph, table, weights, *groups[0]);
  };
  EXPECT_THROW(make(), ConfigError);
  weights.erase("final_norm");
  EXPECT_THROW(make(), ConfigError);
}

TEST_F(ExecutorTest, RankNumbersThatDoNotAgree) {
  Session session = fixture_.session(2);
  EXPECT_THROW(session.run(fixture_.plan("farskip", 3, tokens_), tokens_), ConfigError);
  const Placement placement = Placement::contiguous(fixture_.config().router.experts, 2);
  EXPECT_THROW(Session(fixture_.config(), placement, {}, make_local_groups(2)), UsageError);
}

// As over processes: each session has one rank, and rank 0 gets all the logits.
TEST_F(ExecutorTest, SessionsThatHoldSomeOfTheRanks) {
  const Placement placement = Placement::contiguous(fixture_.config().router.experts, 3);
  const PlannedStep step = fixture_.plan("farskip", 3, tokens_, {.schedule = "overlapped"});
  const PlannedStep other = fixture_.plan("standard", 3, tokens_, {.schedule = "overlapped"});
  Session whole = fixture_.session(3);
  const at::Tensor expected = whole.run(step, tokens_).logits();
  EXPECT_TRUE(whole.gather_logits(whole.run(step, tokens_)).equal(expected));

  const std::vector<std::vector<int>> shares = {{0}, {1, 2}};
  auto groups = make_local_groups(3, {.deadline = std::chrono::duration<double>(20)});
  std::vector<std::thread> processes;
  for (const std::vector<int>& ranks : shares) {
    std::vector<std::unique_ptr<Group>> own;
    for (int rank : ranks) own.push_back(std::move(groups[rank]));
    processes.emplace_back([&, ranks, own = std::move(own)]() mutable {
      Session session(
          fixture_.config(), placement,
          load_weights(fixture_.checkpoint, fixture_.config(), placement, ranks, at::kFloat),
          std::move(own));
      EXPECT_TRUE(session.is_distributed());
      const ForwardResult result = session.run(step, tokens_);
      EXPECT_EQ(result.ranks.size(), ranks.size());
      const at::Tensor all = session.gather_logits(result);
      EXPECT_EQ(all.defined(), ranks[0] == 0);
      if (all.defined()) {
        EXPECT_TRUE(all.equal(expected));
      }
      EXPECT_THROW(session.run(ranks[0] == 0 ? step : other, tokens_), CommError);
    });
  }
  for (std::thread& process : processes) process.join();
}

// One rank fails in the middle of a step: the others end with an error at once.
TEST_F(ExecutorTest, AFailingRankEndsTheStepOfAll) {
  constexpr int ranks = 3;
  const PlannedStep step = fixture_.plan("farskip", ranks, tokens_, {.schedule = "overlapped"});
  const Placement placement = Placement::contiguous(fixture_.config().router.experts, ranks);
  const std::vector<int> all = {0, 1, 2};
  const std::vector<Weights> weights =
      load_weights(fixture_.checkpoint, fixture_.config(), placement, all, at::kFloat);
  const KernelTable table = step_kernels();
  KernelTable broken = table;
  broken.add(OpKind::experts,
             [](const KernelContext&, Inputs, Outputs) { throw Error("broken on purpose"); });
  auto groups = make_local_groups(ranks, {.deadline = std::chrono::duration<double>(30)});
  std::vector<int> comm_errors(ranks, 0);
  const Clock::time_point start = Clock::now();
  auto run_rank = [&](Group& group) {
    const int rank = group.rank();
    RoutingState state;
    Executor executor(fixture_.config(), placement, step.graph, rank == 1 ? broken : table,
                      weights[rank], group, {.state = &state});
    const std::vector<Range> shares = distribute(2, ranks);
    try {
      executor.run(step.schedule, batch_of(tokens_, shares[rank]));
    } catch (const CommError&) {
      comm_errors[rank] = 1;
      throw;
    }
  };
  try {
    run_ranks(groups, run_rank);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("broken on purpose"));
  }
  EXPECT_EQ(comm_errors, (std::vector<int>{1, 0, 1}));
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(10));
}

TEST_F(ExecutorTest, RoundsOfSeveralSteps) {
  Session session = fixture_.session(2);
  const PlannedStep standard = fixture_.plan("standard", 2, tokens_);
  const PlannedStep farskip = fixture_.plan("farskip", 2, tokens_, {.schedule = "overlapped"});
  const std::vector<const PlannedStep*> steps = {&standard, &farskip};
  const auto results = session.run(steps, tokens_, {.rounds = 3});
  ASSERT_EQ(results.size(), 3u);
  for (const auto& round : results) {
    ASSERT_EQ(round.size(), 2u);
    EXPECT_TRUE(round[0].logits().equal(results[0][0].logits()));
    EXPECT_TRUE(round[1].logits().equal(results[0][1].logits()));
  }
}

TEST_F(ExecutorTest, OfAStepSeveralTimesInARowTheLastOneCounts) {
  Session session = fixture_.session(2);
  const PlannedStep step = fixture_.plan("farskip", 2, tokens_, {.schedule = "overlapped"});
  const auto bytes_sent = [&](int times) {
    const uint64_t before = session.groups()[0]->traffic().bytes_sent;
    const ForwardResult result = session.run(step, tokens_, {.times = times});
    EXPECT_TRUE(result.logits().equal(session.run(step, tokens_).logits()));
    return std::pair(session.groups()[0]->traffic().bytes_sent - before,
                     result.ranks[0].traffic.bytes_sent);
  };
  const auto [once_all, once] = bytes_sent(1);
  const auto [often_all, often] = bytes_sent(3);
  EXPECT_EQ(once, often);
  EXPECT_EQ(once_all, 2 * once);
  EXPECT_EQ(often_all, 4 * once);
}

}  // namespace
}  // namespace farskip::testing
