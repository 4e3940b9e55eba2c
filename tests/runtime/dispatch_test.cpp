#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "farskip/comm/chaos.h"
#include "farskip/comm/local.h"
#include "farskip/comm/ranks.h"
#include "farskip/graph/cost.h"
#include "farskip/runtime/kernels.h"
#include "fixture.h"

// Dispatch forms and wires: what they send, and how far from the exact result they are. Golden
// logits and equal bits of per-rank dispatch: golden_test.cpp, bits_test.cpp.
namespace farskip::testing {
namespace {

const DispatchForm forms[] = {DispatchForm::per_expert, DispatchForm::per_rank};

int64_t packet_bytes(const ModelConfig& model, DispatchForm form, bool fp8) {
  if (form == DispatchForm::per_expert && !fp8) return 4 * model.hidden;
  return PacketLayout{.width = model.hidden,
                      .value_bytes = fp8 ? 1 : 4,
                      .scaled = fp8,
                      .choices = form == DispatchForm::per_rank ? model.router.top_k : 0}
      .bytes();
}

// Rows that leave their token's rank, by the routing that was recorded: for each expert elsewhere,
// or for each other rank that holds one.
int64_t rows_off_rank(const ForwardResult& result, const Placement& placement,
                      const std::vector<int64_t>& rank_of_token, DispatchForm form) {
  int64_t rows = 0;
  for (const auto& [layer, routing] : result.routing) {
    const auto ids = routing.experts.accessor<int64_t, 2>();
    for (int64_t token = 0; token < ids.size(0); ++token) {
      std::set<int> reached;
      for (int64_t j = 0; j < ids.size(1); ++j) {
        const int rank = placement.rank_of(static_cast<int>(ids[token][j]));
        if (rank == rank_of_token[token]) continue;
        rows += form == DispatchForm::per_expert;
        reached.insert(rank);
      }
      if (form == DispatchForm::per_rank) rows += static_cast<int64_t>(reached.size());
    }
  }
  return rows;
}

std::vector<int64_t> ranks_of_tokens(const TokenBatch& tokens, int ranks) {
  std::vector<int64_t> rank_of;
  const std::vector<Range> shares = distribute(tokens.batch(), ranks);
  for (int rank = 0; rank < ranks; ++rank) {
    for (int64_t s = shares[rank].first; s < shares[rank].last; ++s) {
      rank_of.insert(rank_of.end(), tokens.lengths[s], rank);
    }
  }
  return rank_of;
}

class Dispatch : public ::testing::TestWithParam<std::tuple<const char*, DispatchForm, bool>> {};

// deepseek_v3 limits routing to groups.
TEST_P(Dispatch, SendsTheBytesOfTheRowsThatMove) {
  const auto& [family, form, fp8] = GetParam();
  const Fixture fixture(family);
  const ModelConfig& model = fixture.config();
  const TokenBatch tokens = fixture.prefixes({48, 48, 48, 48, 48, 48, 48, 48});
  for (const int ranks : {2, 4}) {
    Session session = fixture.session(ranks);
    for (const int chunks : {1, 2}) {
      const StepForm step_form{
          .schedule = "overlapped", .expert_chunks = chunks, .dispatch = form, .fp8_wire = fp8};
      const PlannedStep step = fixture.plan("farskip", ranks, tokens, step_form);
      const ForwardResult result = session.run(step, tokens, {.record_routing = true});
      int64_t sent = 0, received = 0;
      for (const StepResult& rank : result.ranks) {
        sent += rank.traffic.bytes_sent;
        received += rank.traffic.bytes_received;
      }
      const int64_t rows =
          rows_off_rank(result, session.placement(), ranks_of_tokens(tokens, ranks), form);
      const int64_t counts = form == DispatchForm::per_expert
                                 ? 8 * model.router.experts * (ranks - 1)
                                 : 8 * 3 * chunks * ranks * (ranks - 1);
      EXPECT_EQ(sent, rows * (packet_bytes(model, form, fp8) + 4 * model.hidden) +
                          counts * model.moe_layer_count());
      EXPECT_EQ(sent, received);
      // Few tokens and a router that prefers some experts: near the statistics, not at them.
      const double planned = total_cost(step.graph).bytes_sent * ranks;
      EXPECT_NEAR(static_cast<double>(sent) / planned, 1, 0.25) << ranks << " ranks";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, Dispatch,
                         ::testing::Combine(::testing::Values("deepseek_v3", "olmoe"),
                                            ::testing::ValuesIn(forms), ::testing::Bool()),
                         [](const auto& info) {
                           const std::string form =
                               std::get<1>(info.param) == DispatchForm::per_rank ? "_per_rank"
                                                                                 : "_per_expert";
                           return std::get<0>(info.param) + form +
                                  (std::get<2>(info.param) ? "_fp8" : "");
                         });

// Measured: 1 to 4 % of the logits' norm after a few layers of random weights; a row's own error
// is bounded in tests/nn/packets_test.cpp.
TEST(Fp8Dispatch, LogitsAreNear) {
  for (const char* family : {"deepseek_v3", "qwen3_moe", "mixtral"}) {
    const Fixture fixture(family);
    const TokenBatch tokens = fixture.golden_tokens();
    Session session = fixture.session(2);
    const ForwardResult exact =
        session.run(fixture.plan("farskip", 2, tokens), tokens, {.record_routing = true});
    for (const DispatchForm form : forms) {
      // Of the same experts, so that the error is the wire's alone.
      const PlannedStep step = fixture.plan("farskip", 2, tokens,
                                            {.schedule = "overlapped",
                                             .expert_chunks = 2,
                                             .dispatch = form,
                                             .fp8_wire = true,
                                             .routing = RoutingMode::replay});
      const at::Tensor found = session.run(step, tokens, {.replay = &exact.routing}).logits();
      const double error = ((found - exact.logits()).norm() / exact.logits().norm()).item<double>();
      EXPECT_LT(error, 0.05) << family;
      EXPECT_GT(error, 1e-4) << family;  // it did travel in FP8
    }
  }
}

TEST(Fp8Dispatch, SchedulesChunksAndDelaysChangeNoBit) {
  const Fixture fixture("deepseek_v2");
  const TokenBatch tokens = fixture.prefixes({48, 17, 5, 33, 1, 48, 2});
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const DispatchForm form : forms) {
      Session session = fixture.session(3, dtype);
      const auto run = [&](Session& where, const char* schedule, int chunks) {
        const StepForm step_form{.schedule = schedule,
                                 .expert_chunks = chunks,
                                 .dispatch = form,
                                 .fp8_wire = true,
                                 .dtype = dtype};
        return where.run(fixture.plan("farskip", 3, tokens, step_form), tokens).logits();
      };
      const at::Tensor expected = run(session, "blocking", 1);
      EXPECT_TRUE(at::equal(expected, run(session, "overlapped", 1)));
      EXPECT_TRUE(at::equal(expected, run(session, "overlapped", 2)));
      Session chaos = fixture.session(3, dtype, make_chaos(make_local_groups(3), 5));
      EXPECT_TRUE(at::equal(expected, run(chaos, "released", 2)));
    }
  }
}

// A single token goes to few experts: most have no rows, and all ranks but one no tokens.
TEST(RankDispatch, IdleExpertsAndRanks) {
  const Fixture fixture("deepseek_v3");
  const std::vector<int64_t> lengths = {1};
  const TokenBatch tokens = fixture.prefixes(lengths);
  const at::Tensor expected =
      fixture.golden_prefixes(fixture.golden.view("logits.farskip"), lengths);
  for (const int ranks : {2, 5, 16}) {
    Session session = fixture.session(ranks);
    const int chunks = ranks == 16 ? 1 : 3;
    const PlannedStep step = fixture.plan(
        "farskip", ranks, tokens,
        {.schedule = "overlapped", .expert_chunks = chunks, .dispatch = DispatchForm::per_rank});
    EXPECT_LT(relative_error(session.run(step, tokens).logits(), expected), 2e-5) << ranks;
  }
}

// Where experts are decides which rank sums what, in what order: a matter of rounding.
TEST(RankDispatch, PlacementIsFree) {
  const Fixture fixture("deepseek_v2");
  const TokenBatch tokens = fixture.golden_tokens();
  const PlannedStep step = fixture.plan(
      "farskip", 3, tokens,
      {.schedule = "overlapped", .expert_chunks = 2, .dispatch = DispatchForm::per_rank});
  const Placement placement = Placement::from_table({{5, 7}, {0, 2, 6}, {1, 3, 4}});
  const std::vector<int> all = {0, 1, 2};
  Session session(fixture.config(), placement,
                  load_weights(fixture.checkpoint, fixture.config(), placement, all, at::kFloat),
                  make_local_groups(3));
  EXPECT_LT(relative_error(session.run(step, tokens).logits(),
                           fixture.golden.view("logits.farskip").flatten(0, 1)),
            2e-5);
}

// Packets that are not those that were counted, or name experts that are not there, end the step of
// all ranks with an error.
TEST(RankDispatch, WrongPacketsEndTheStep) {
  constexpr int ranks = 2;
  const Fixture fixture("olmoe");
  const TokenBatch tokens = fixture.golden_tokens();
  const PlannedStep step =
      fixture.plan("farskip", ranks, tokens, {.dispatch = DispatchForm::per_rank});
  const Placement placement = Placement::contiguous(fixture.config().router.experts, ranks);
  const std::vector<int> all = {0, 1};
  const std::vector<Weights> weights =
      load_weights(fixture.checkpoint, fixture.config(), placement, all, at::kFloat);
  const KernelTable table = step_kernels();
  KernelTable without_experts = table, with_strange_ones = table;
  without_experts.add(OpKind::permute,
                      [](const KernelContext&, Inputs, Outputs out) { out[0].fill_(0xFF); });
  with_strange_ones.add(OpKind::permute,
                        [](const KernelContext&, Inputs, Outputs out) { out[0].fill_(0x7F); });
  for (const KernelTable& wrong : {without_experts, with_strange_ones}) {
    auto groups = make_local_groups(ranks, {.deadline = std::chrono::duration<double>(30)});
    const auto run_rank = [&](Group& group) {
      RoutingState state;
      Executor executor(fixture.config(), placement, step.graph, group.rank() == 1 ? wrong : table,
                        weights[group.rank()], group, {.state = &state});
      executor.run(step.schedule, batch_of(tokens, distribute(2, ranks)[group.rank()]));
    };
    EXPECT_THROW(run_ranks(groups, run_rank), Error);
  }
}

}  // namespace
}  // namespace farskip::testing
