#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "farskip/comm/chaos.h"
#include "farskip/comm/local.h"
#include "farskip/comm/throttled.h"
#include "fixture.h"

namespace farskip::testing {
namespace {

const std::vector<int64_t> lengths = {48, 17, 5, 33, 1, 48, 2};

at::Tensor logits_of(const Fixture& fixture, Session& session, const std::string& connectivity,
                     const StepForm& form, RunOptions options = {}) {
  const TokenBatch tokens = fixture.prefixes(lengths);
  return session.run(fixture.plan(connectivity, session.ranks(), tokens, form), tokens, options)
      .logits();
}

class Bits : public ::testing::TestWithParam<std::tuple<const char*, int, DispatchForm>> {};

TEST_P(Bits, SchedulesChunksAndPiecesChangeNone) {
  const auto& [family, ranks, dispatch] = GetParam();
  const Fixture fixture(family);
  Session session = fixture.session(ranks);
  for (const char* connectivity : {"standard", "farskip"}) {
    const auto scheduled = [&](const char* schedule) {
      return logits_of(fixture, session, connectivity,
                       {.schedule = schedule, .dispatch = dispatch});
    };
    const at::Tensor expected = scheduled("blocking");
    for (const char* schedule : {"released", "overlapped"}) {
      EXPECT_TRUE(at::equal(expected, scheduled(schedule))) << connectivity << " " << schedule;
    }
    for (int chunks : {1, 2, 4}) {
      if (chunks > fixture.config().router.experts / ranks) continue;
      for (int pieces : {1, 2, 3}) {
        const StepForm form{.schedule = "overlapped",
                            .expert_chunks = chunks,
                            .pieces = pieces,
                            .dispatch = dispatch};
        EXPECT_TRUE(at::equal(expected, logits_of(fixture, session, connectivity, form)))
            << connectivity << ", chunks " << chunks << ", pieces " << pieces;
      }
    }
  }
}

TEST_P(Bits, TwoBatchesAreTheirHalves) {
  const auto& [family, ranks, dispatch] = GetParam();
  const Fixture fixture(family);
  Session session = fixture.session(ranks);
  const at::Tensor blocking =
      logits_of(fixture, session, "farskip",
                {.schedule = "blocking", .two_batch = true, .dispatch = dispatch});
  const at::Tensor overlapped = logits_of(fixture, session, "farskip",
                                          {.schedule = "overlapped",
                                           .two_batch = true,
                                           .expert_chunks = 2,
                                           .pieces = 2,
                                           .dispatch = dispatch});
  EXPECT_TRUE(at::equal(blocking, overlapped));
  EXPECT_LT(relative_error(blocking, logits_of(fixture, session, "farskip", {})), 2e-5);
  if (ranks > 1) return;
  // One rank: the halves can be run by themselves.
  const TokenBatch first = fixture.prefixes({lengths.begin(), lengths.begin() + 4});
  const at::Tensor alone = session.run(fixture.plan("farskip", 1, first), first).logits();
  EXPECT_TRUE(at::equal(blocking.narrow(0, 0, alone.size(0)), alone));
}

INSTANTIATE_TEST_SUITE_P(Families, Bits,
                         ::testing::Combine(::testing::Values("deepseek_v3", "olmoe", "mixtral"),
                                            ::testing::Values(1, 2, 3),
                                            ::testing::Values(DispatchForm::per_expert,
                                                              DispatchForm::per_rank)),
                         [](const auto& info) {
                           const bool per_rank = std::get<2>(info.param) == DispatchForm::per_rank;
                           return std::string(std::get<0>(info.param)) + "_" +
                                  std::to_string(std::get<1>(info.param)) +
                                  (per_rank ? "_per_rank" : "");
                         });

class BitsOfForms : public ::testing::TestWithParam<DispatchForm> {};

TEST_P(BitsOfForms, ChaosAndThrottlingChangeNone) {
  const Fixture fixture("deepseek_v2");
  constexpr int ranks = 3;
  Session plain = fixture.session(ranks);
  const at::Tensor expected =
      logits_of(fixture, plain, "farskip", {.schedule = "blocking", .dispatch = GetParam()});
  const StepForm form{
      .schedule = "overlapped", .expert_chunks = 2, .pieces = 2, .dispatch = GetParam()};
  for (uint64_t seed : {1, 2, 3}) {
    Session chaos = fixture.session(ranks, at::kFloat, make_chaos(make_local_groups(ranks), seed));
    EXPECT_TRUE(
        at::equal(expected, logits_of(fixture, chaos, "farskip", form, {.chaos_seed = seed})))
        << "seed " << seed;
  }
  Session throttled = fixture.session(
      ranks, at::kFloat,
      make_throttled(make_local_groups(ranks), {.bytes_per_second = 1e8, .latency_seconds = 1e-4}));
  EXPECT_TRUE(at::equal(expected, logits_of(fixture, throttled, "farskip", form)));
}

INSTANTIATE_TEST_SUITE_P(Forms, BitsOfForms,
                         ::testing::Values(DispatchForm::per_expert, DispatchForm::per_rank),
                         [](const auto& info) {
                           return info.param == DispatchForm::per_rank ? "per_rank" : "per_expert";
                         });

// Placement is free: the same experts elsewhere give the same logits, but for nothing at all, as
// every token sums its experts in the same order.
TEST(BitsOfTransports, PlacementChangesNone) {
  const Fixture fixture("deepseek_v2");
  const TokenBatch tokens = fixture.prefixes(lengths);
  const StepForm form{.schedule = "overlapped", .expert_chunks = 2};
  const PlannedStep step = fixture.plan("farskip", 2, tokens, form);
  const Placement placement = Placement::from_table({{1, 3, 4, 6, 7}, {0, 2, 5}});
  const std::vector<int> all = {0, 1};
  Session session(fixture.config(), placement,
                  load_weights(fixture.checkpoint, fixture.config(), placement, all, at::kFloat),
                  make_local_groups(2));
  Session contiguous = fixture.session(2);
  EXPECT_TRUE(at::equal(session.run(step, tokens).logits(), contiguous.run(step, tokens).logits()));
}

TEST(BitsOfTransports, ReplayedRoutingIsTheSame) {
  const Fixture fixture("deepseek_v2");
  const TokenBatch tokens = fixture.prefixes(lengths);
  Session session = fixture.session(2);
  const ForwardResult recorded =
      session.run(fixture.plan("farskip", 2, tokens, {.schedule = "overlapped", .two_batch = true}),
                  tokens, {.record_routing = true});
  const StepForm form{.schedule = "overlapped", .two_batch = true, .routing = RoutingMode::replay};
  const PlannedStep step = fixture.plan("farskip", 2, tokens, form);
  const ForwardResult replayed = session.run(step, tokens, {.replay = &recorded.routing});
  EXPECT_TRUE(at::equal(recorded.logits(), replayed.logits()));
  EXPECT_THROW(session.run(step, tokens), Error);
}

TEST(BitsOfTransports, BalancedRoutingIsBalanced) {
  const Fixture fixture("olmoe");
  const TokenBatch tokens = fixture.prefixes(lengths);
  Session session = fixture.session(2);
  const PlannedStep step = fixture.plan(
      "farskip", 2, tokens, {.schedule = "overlapped", .routing = RoutingMode::balanced});
  const ForwardResult result = session.run(step, tokens, {.record_routing = true});
  const at::Tensor loads = result.routing.at(1).experts.flatten().bincount();
  EXPECT_LE((loads.max() - loads.min()).item<int64_t>(), 1);
}

}  // namespace
}  // namespace farskip::testing
