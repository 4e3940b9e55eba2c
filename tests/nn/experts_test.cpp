#include "farskip/nn/experts.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "farskip/base/error.h"
#include "farskip/nn/head.h"
#include "farskip/nn/linear.h"
#include "farskip/nn/mlp.h"
#include "farskip/nn/permutation.h"
#include "farskip/nn/router.h"
#include "farskip/nn/tensor_ops.h"
#include "random_tensors.h"

namespace farskip::testing {
namespace {

at::Tensor slow_swiglu(const at::Tensor& x, const at::Tensor& gate_up, const at::Tensor& down) {
  const at::Tensor product = x.to(at::kDouble).mm(gate_up.to(at::kDouble).t());
  const int64_t width = down.size(1);
  const at::Tensor gate = product.narrow(1, 0, width), up = product.narrow(1, width, width);
  return (gate * at::sigmoid(gate) * up).mm(down.to(at::kDouble).t());
}

at::Tensor counts_of(std::vector<int64_t> values, int64_t ranks) {
  return at::tensor(values, at::kLong).view({ranks, -1});
}

TEST(Linear, MatchesDefinitionWithFewAndNoRows) {
  const at::Tensor weight = random({7, 33}, 1);
  for (const int64_t rows : {0, 1, 3, 4, 9}) {
    const at::Tensor x = random({rows, 33}, 2);
    const at::Tensor expected = x.to(at::kDouble).mm(weight.to(at::kDouble).t());
    EXPECT_LT(relative_error(linear(x, weight), expected), 1e-6);
    const at::Tensor wide = x.to(at::kBFloat16);
    EXPECT_LT(relative_error(linear(wide, weight.to(at::kBFloat16)), expected), 2e-2);
  }
  EXPECT_THROW(linear(at::ones({2, 32}), weight), Error);
  EXPECT_THROW(linear(at::ones({2, 33}, at::kBFloat16), weight), Error);
}

// What pieces and unequal ranks rest on. Sizes of real layers and odd ones.
TEST(Linear, RowsAreIndependent) {
  for (const auto& [in, out] : std::vector<std::pair<int64_t, int64_t>>{
           {64, 96}, {64, 16}, {16, 64}, {37, 53}, {512, 1408}, {2048, 64}, {1408, 256}}) {
    const at::Tensor x = random({61, in}, 1), weight = random({out, in}, 2);
    const at::Tensor whole = linear(x, weight);
    int64_t first = 0;
    for (const int64_t rows : {1, 2, 3, 4, 5, 16, 30}) {
      EXPECT_TRUE(at::equal(linear(x.narrow(0, first, rows), weight), whole.narrow(0, first, rows)))
          << rows << " rows of " << in << " x " << out;
      first += rows;
    }
  }
}

TEST(Swiglu, MatchesDefinition) {
  for (const int64_t width : {1, 13, 48}) {
    const at::Tensor x = random({6, 20}, 1), down = random({20, width}, 3);
    const at::Tensor gate_up = random({2 * width, 20}, 2);
    const at::Tensor expected = slow_swiglu(x, gate_up, down);
    EXPECT_LT(relative_error(swiglu(x, gate_up, down), expected), 1e-6);
    EXPECT_LT(relative_error(
                  swiglu(x.to(at::kBFloat16), gate_up.to(at::kBFloat16), down.to(at::kBFloat16)),
                  expected),
              3e-2);
  }
  EXPECT_EQ(swiglu(at::empty({0, 4}), at::ones({6, 4}), at::ones({4, 3})).size(0), 0);
  EXPECT_THROW(swiglu(at::ones({2, 4}), at::ones({5, 4}), at::ones({4, 3})), Error);
}

TEST(Swiglu, RowsAreIndependentAtOddWidths) {
  const at::Tensor x = random({23, 40}, 1), gate_up = random({2 * 37, 40}, 2),
                   down = random({40, 37}, 3);
  const at::Tensor whole = swiglu(x, gate_up, down);
  for (const int64_t cut : {1, 4, 9, 19}) {
    EXPECT_TRUE(at::equal(at::cat({swiglu(x.narrow(0, 0, cut), gate_up, down),
                                   swiglu(x.narrow(0, cut, 23 - cut), gate_up, down)}),
                          whole));
  }
}

// Rows from three ranks for four experts, some of them idle.
struct ExpertCase {
  at::Tensor counts = counts_of({2, 0, 5, 1, 0, 0, 4, 0, 7, 0, 3, 2}, 3);
  at::Tensor rows, gate_up, down;
  explicit ExpertCase(int64_t hidden, int64_t width, at::ScalarType dtype = at::kFloat)
      : rows(random({24, hidden}, 1, dtype)),
        gate_up(random({4, 2 * width, hidden}, 2, dtype)),
        down(random({4, hidden, width}, 3, dtype)) {}
};

at::Tensor slow_experts(const ExpertCase& c) {
  std::vector<at::Tensor> parts;
  int64_t first = 0;
  for (int64_t rank = 0; rank < 3; ++rank) {
    for (int64_t expert = 0; expert < 4; ++expert) {
      const int64_t rows = c.counts[rank][expert].item<int64_t>();
      parts.push_back(
          slow_swiglu(c.rows.narrow(0, first, rows), c.gate_up[expert], c.down[expert]));
      first += rows;
    }
  }
  return at::cat(parts);
}

TEST(Experts, EveryRowByItsExpertInPlace) {
  for (const auto& [hidden, width] :
       std::vector<std::pair<int64_t, int64_t>>{{16, 8}, {19, 7}, {64, 16}}) {
    const ExpertCase c(hidden, width);
    EXPECT_LT(relative_error(experts(c.rows, c.counts, c.gate_up, c.down), slow_experts(c)), 1e-6);
    const ExpertCase half(hidden, width, at::kBFloat16);
    EXPECT_LT(relative_error(experts(half.rows, half.counts, half.gate_up, half.down),
                             slow_experts(half)),
              3e-2);
  }
}

TEST(Experts, GroupedProductsOfOtherDevicesAgree) {
  for (const auto& [hidden, width] : std::vector<std::pair<int64_t, int64_t>>{{16, 8}, {64, 16}}) {
    const ExpertCase c(hidden, width);
    EXPECT_LT(relative_error(tensor_ops::experts(c.rows, c.counts, c.gate_up, c.down).rows,
                             slow_experts(c)),
              1e-6);
    const at::Tensor one_rank = c.counts.sum(0, true);
    EXPECT_LT(relative_error(tensor_ops::experts(c.rows, one_rank, c.gate_up, c.down).rows,
                             experts(c.rows, one_rank, c.gate_up, c.down)),
              1e-6);
  }
}

// A chunk takes some experts of every rank; its rows come out as in the whole.
TEST(Experts, ChunksChangeNoBit) {
  for (const auto& [hidden, width] :
       std::vector<std::pair<int64_t, int64_t>>{{16, 8}, {19, 7}, {256, 176}}) {
    const ExpertCase c(hidden, width);
    const at::Tensor whole = experts(c.rows, c.counts, c.gate_up, c.down);
    for (const auto& [first, last] :
         std::vector<std::pair<int64_t, int64_t>>{{0, 2}, {2, 4}, {1, 2}, {3, 4}}) {
      std::vector<at::Tensor> rows, expected;
      int64_t next = 0;
      for (int64_t rank = 0; rank < 3; ++rank) {
        for (int64_t expert = 0; expert < 4; ++expert) {
          const int64_t count = c.counts[rank][expert].item<int64_t>();
          if (expert >= first && expert < last) {
            rows.push_back(c.rows.narrow(0, next, count));
            expected.push_back(whole.narrow(0, next, count));
          }
          next += count;
        }
      }
      const at::Tensor part =
          experts(at::cat(rows), c.counts.narrow(1, first, last - first), c.gate_up, c.down, first);
      EXPECT_TRUE(at::equal(part, at::cat(expected)));
    }
  }
}

TEST(Experts, RowsDoNotDependOnTheRanksTheyComeFrom) {
  const ExpertCase c(64, 48);
  const at::Tensor together = experts(c.rows, counts_of({24, 0, 0, 0}, 1), c.gate_up, c.down);
  const at::Tensor apart =
      experts(c.rows, counts_of({1, 0, 0, 0, 2, 0, 0, 0, 21, 0, 0, 0}, 3), c.gate_up, c.down);
  EXPECT_TRUE(at::equal(together, apart));
}

TEST(Experts, TakesNoRowsAndRefusesCountsThatDoNotFit) {
  const ExpertCase c(16, 8);
  EXPECT_EQ(experts(at::empty({0, 16}), at::zeros({3, 4}, at::kLong), c.gate_up, c.down).size(0),
            0);
  EXPECT_EQ(experts(at::empty({0, 16}), at::zeros({0, 4}, at::kLong), c.gate_up, c.down).size(0),
            0);
  EXPECT_THROW(experts(c.rows.narrow(0, 0, 23), c.counts, c.gate_up, c.down), Error);
  EXPECT_THROW(experts(c.rows, c.counts.narrow(0, 0, 2), c.gate_up, c.down), Error);
  EXPECT_THROW(experts(c.rows, -c.counts, c.gate_up, c.down), Error);
  EXPECT_THROW(experts(c.rows, c.counts, c.gate_up, c.down, 1), Error);
  EXPECT_THROW(experts(c.rows, c.counts, c.gate_up, c.down, -1), Error);
  EXPECT_THROW(experts(c.rows, c.counts.to(at::kInt), c.gate_up, c.down), Error);
}

TEST(Experts, OfTokensAreThoseOfPermutedRows) {
  for (const int64_t tokens : {0, 1, 9}) {
    const at::Tensor x = random({tokens, 24}, 1);
    const at::Tensor gate_up = random({5, 32, 24}, 2), down = random({5, 24, 16}, 3);
    RouterConfig config;
    config.experts = 5;
    config.top_k = 2;
    const Routing routing = choose_experts(config, random({tokens, 5}, 4), {});
    const DispatchPlan plan = make_plan(routing.experts, at::arange(5, at::kLong));
    const at::Tensor counts = plan.counts.unsqueeze(0);
    EXPECT_TRUE(at::equal(experts_of_tokens(x, plan.order, 2, counts, gate_up, down),
                          experts(permute(x, plan.order, 2), counts, gate_up, down)));
  }
}

// What a backward pass computes again has the bits of what the forward pass would have kept.
TEST(Experts, ProductsAloneAreThoseThatAreSaved) {
  const ExpertCase c(64, 48);
  const at::Tensor products = experts_products(c.rows, c.counts, c.gate_up);
  EXPECT_TRUE(at::equal(products, experts_saving(c.rows, c.counts, c.gate_up, c.down).products));
  EXPECT_LT(relative_error(tensor_ops::experts_products(c.rows, c.counts, c.gate_up), products),
            1e-5);
  const at::Tensor none = experts_products(at::empty({0, 64}), c.counts * 0, c.gate_up);
  EXPECT_EQ(none.sizes(), at::IntArrayRef({0, 96}));
  EXPECT_THROW(experts_products(c.rows.narrow(0, 0, 23), c.counts, c.gate_up), Error);
  EXPECT_THROW(experts_products(c.rows, c.counts, c.gate_up.narrow(2, 0, 63)), Error);
  EXPECT_THROW(experts_products(c.rows, c.counts, c.gate_up.narrow(0, 0, 3)), Error);
}

TEST(Head, EmbedsAndComputesLogits) {
  const at::Tensor weight = random({10, 8}, 1), norm = random({8}, 2);
  const at::Tensor ids = at::tensor({3, 0, 9}, at::kLong);
  const at::Tensor x = embed(weight, ids);
  EXPECT_TRUE(at::equal(x[2], weight[9]));
  EXPECT_EQ(logits(x, norm, 1e-5, weight).sizes(), at::IntArrayRef({3, 10}));
  const at::Tensor half =
      logits(x.to(at::kBFloat16), norm.to(at::kBFloat16), 1e-5, weight.to(at::kBFloat16));
  EXPECT_EQ(half.scalar_type(), at::kFloat);
  EXPECT_LT(relative_error(half, logits(x, norm, 1e-5, weight)), 3e-2);
  EXPECT_EQ(embed(weight, at::empty({0}, at::kLong)).size(0), 0);
  EXPECT_THROW(embed(weight, at::tensor({10}, at::kLong)), Error);
  EXPECT_THROW(embed(weight, at::tensor({-1}, at::kLong)), Error);
}

}  // namespace
}  // namespace farskip::testing
