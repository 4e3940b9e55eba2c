#include "farskip/nn/rank_plan.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/nn/router.h"
#include "farskip/nn/tensor_ops.h"
#include "random_tensors.h"

namespace farskip::testing {
namespace {

// Experts dealt to ranks in turn; a rank's lie in even chunks.
ExpertHomes homes_of(int64_t experts, int64_t ranks, int64_t chunks) {
  ExpertHomes homes{at::empty({experts}, at::kLong), at::empty({experts}, at::kLong),
                    at::empty({experts}, at::kLong)};
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const int64_t here = (experts - rank + ranks - 1) / ranks;
    for (int64_t e = 0; e < here; ++e) {
      const int64_t expert = rank + e * ranks;
      homes.rank[expert] = rank;
      homes.local[expert] = e;
      homes.chunk[expert] = ((e + 1) * chunks - 1) / here;
    }
  }
  return homes;
}

Routing routing_of(int64_t tokens, int experts, int top_k, uint64_t seed) {
  RouterConfig config;
  config.experts = experts;
  config.top_k = top_k;
  return choose_experts(config, random({tokens, experts}, seed), {});
}

struct Row {
  int64_t slot, token, rank, first, last;
};

// The rows of a routing by the definition.
std::vector<Row> rows_of(const at::Tensor& experts, const ExpertHomes& homes) {
  std::vector<Row> rows;
  for (int64_t token = 0; token < experts.size(0); ++token) {
    std::map<int64_t, Row> of_rank;
    for (int64_t j = 0; j < experts.size(1); ++j) {
      const int64_t expert = experts[token][j].item<int64_t>();
      const int64_t rank = homes.rank[expert].item<int64_t>();
      const int64_t chunk = homes.chunk[expert].item<int64_t>();
      Row& row = of_rank.try_emplace(rank, Row{token * experts.size(1) + j, token, rank, chunk, -1})
                     .first->second;
      row.first = std::min(row.first, chunk);
      row.last = std::max(row.last, chunk);
    }
    for (const auto& [rank, row] : of_rank) rows.push_back(row);
  }
  return rows;
}

TEST(RankPlan, SendsATokenOnceToEachRank) {
  for (const int64_t tokens : {0, 1, 37}) {
    for (const int64_t ranks : {1, 2, 3, 5}) {
      for (const int64_t chunks : {1, 2, 3}) {
        SCOPED_TRACE(::testing::Message() << tokens << " tokens, " << ranks << " x " << chunks);
        const ExpertHomes homes = homes_of(17, ranks, chunks);
        const at::Tensor experts = routing_of(tokens, 17, 4, 1).experts;
        const RankPlan plan = make_rank_plan(experts, homes, ranks, chunks);
        std::vector<Row> rows = rows_of(experts, homes);
        const RankPlan by_operators = tensor_ops::make_rank_plan(experts, homes, ranks, chunks);
        EXPECT_TRUE(at::equal(plan.order, by_operators.order));
        EXPECT_TRUE(at::equal(plan.inverse, by_operators.inverse));
        EXPECT_TRUE(at::equal(plan.counts, by_operators.counts));

        const auto out_key = [](const Row& r) { return std::tuple(r.first, r.rank, r.token); };
        std::ranges::sort(rows, {}, out_key);
        for (size_t i = 0; i < rows.size(); ++i) {
          EXPECT_EQ(plan.order[static_cast<int64_t>(i)].item<int64_t>(), rows[i].slot);
        }
        at::Tensor counts = at::zeros({ranks, 3 * chunks}, at::kLong);
        for (const Row& row : rows) {
          counts[row.rank][row.first] += 1;
          counts[row.rank][chunks + row.last] += 1;
        }
        for (int64_t slot = 0; slot < experts.numel(); ++slot) {
          const int64_t expert = experts.flatten()[slot].item<int64_t>();
          const int64_t chunk = homes.chunk[expert].item<int64_t>();
          counts[homes.rank[expert].item<int64_t>()][2 * chunks + chunk] += 1;
        }
        EXPECT_TRUE(at::equal(plan.counts, counts));

        std::ranges::stable_sort(rows, {}, [](const Row& r) { return std::tuple(r.last, r.rank); });
        std::vector<std::map<int64_t, int64_t>> home(tokens);  // by rank
        for (size_t i = 0; i < rows.size(); ++i) home[rows[i].token][rows[i].rank] = i;
        for (int64_t token = 0; token < tokens; ++token) {
          std::vector<int64_t> expected(4, -1);
          int64_t next = 0;
          for (const auto& [rank, row] : home[token]) expected[next++] = row;
          EXPECT_TRUE(at::equal(plan.inverse.narrow(0, token * 4, 4), at::tensor(expected)));
        }
      }
    }
  }
}

TEST(RankPlan, ChoicesNameTheReceiversExperts) {
  const ExpertHomes homes = homes_of(6, 2, 1);  // rank 0: 0 2 4, rank 1: 1 3 5
  const at::Tensor experts = at::tensor({0, 3, 4, 1, 3, 5}, at::kLong).view({2, 3});
  const at::Tensor weights = random({2, 3}, 1);
  const RankPlan plan = make_rank_plan(experts, homes, 2, 1);
  const RowChoices choices = row_choices(experts, weights, plan.order.narrow(0, 0, 3), homes);
  EXPECT_TRUE(at::equal(choices.experts,
                        at::tensor({0, -1, 2, -1, 1, -1, 0, 1, 2}, at::kLong).view({3, 3})));
  EXPECT_TRUE(at::equal(choices.weights, weights.index_select(0, at::tensor({0, 0, 1}))));
}

TEST(RankPlan, PlacesReceivedRowsByExpert) {
  const at::Tensor experts = at::tensor({1, -1, 0, -1, 0, 1, -1, -1, 1}, at::kLong).view({3, 3});
  const SlotPlaces slots = place_slots(experts, 3);
  EXPECT_TRUE(at::equal(slots.places, at::tensor({2, -1, 0, -1, 1, 3, -1, -1, 4}, at::kLong)));
  EXPECT_TRUE(at::equal(slots.counts, at::tensor({2, 3, 0}, at::kLong)));
  EXPECT_EQ(place_slots(at::empty({0, 3}, at::kLong), 2).places.size(0), 0);
}

TEST(RankPlan, RowsReturnByLastChunkAndSource) {
  // Four experts in two chunks.
  const at::Tensor experts = at::tensor({0, 3, 1, -1, 2, -1, 0, 1}, at::kLong).view({4, 2});
  const at::Tensor sources = at::tensor({1, 1, 0, 0}, at::kLong);
  EXPECT_TRUE(
      at::equal(return_order(experts, sources, 4, 2, 2), at::tensor({3, 1, 2, 0}, at::kLong)));
}

// Experts of a packet come from a peer.
TEST(RankPlan, RefusesExpertsThatAreNotThere) {
  for (const int64_t wrong : {3, 1000, -2}) {
    EXPECT_THROW(place_slots(at::tensor({int64_t{0}, wrong}, at::kLong).view({1, 2}), 3), Error);
  }
  EXPECT_THROW(place_slots(at::zeros({2, 2}, at::kInt), 3), Error);
  EXPECT_THROW(make_rank_plan(at::zeros({2}, at::kLong), homes_of(4, 2, 1), 2, 1), Error);
  for (const int64_t wrong : {4, -1}) {
    EXPECT_THROW(make_rank_plan(at::full({1, 1}, wrong, at::kLong), homes_of(4, 2, 1), 2, 1),
                 Error);
  }
}

}  // namespace
}  // namespace farskip::testing
