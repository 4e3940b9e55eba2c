#include "farskip/nn/permutation.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>

#include "farskip/base/error.h"
#include "farskip/nn/router.h"
#include "farskip/nn/tensor_ops.h"
#include "random_tensors.h"

namespace farskip::testing {
namespace {

at::Tensor random_positions(int64_t experts, uint64_t seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randperm(experts, generator, at::kLong);
}

Routing random_routing(int64_t tokens, int experts, int top_k, uint64_t seed) {
  RouterConfig config;
  config.experts = experts;
  config.top_k = top_k;
  return choose_experts(config, random({tokens, experts}, seed), {});
}

TEST(DispatchPlan, OrdersSlotsByPositionThenSlot) {
  const at::Tensor experts = at::tensor({0, 2, 1, 2}, at::kLong).view({2, 2});
  const DispatchPlan plan = make_plan(experts, at::tensor({2, 0, 1}, at::kLong));
  EXPECT_TRUE(at::equal(plan.order, at::tensor({2, 1, 3, 0}, at::kLong)));
  EXPECT_TRUE(at::equal(plan.inverse, at::tensor({3, 1, 0, 2}, at::kLong)));
  EXPECT_TRUE(at::equal(plan.counts, at::tensor({1, 2, 1}, at::kLong)));
}

TEST(DispatchPlan, LoopAgreesWithOperators) {
  for (const int64_t tokens : {0, 1, 40}) {
    const Routing routing = random_routing(tokens, 10, 4, 1);
    const at::Tensor positions = random_positions(10, 2);
    const DispatchPlan found = make_plan(routing.experts, positions);
    const DispatchPlan expected = tensor_ops::make_plan(routing.experts, positions);
    EXPECT_TRUE(at::equal(found.order, expected.order));
    EXPECT_TRUE(at::equal(found.inverse, expected.inverse));
    EXPECT_TRUE(at::equal(found.counts, expected.counts));
    EXPECT_TRUE(at::equal(found.order.index_select(0, found.inverse), at::arange(tokens * 4)));
  }
}

TEST(DispatchPlan, RefusesBadIdsAndPositions) {
  const at::Tensor experts = at::zeros({2, 2}, at::kLong);
  EXPECT_THROW(make_plan(experts + 3, at::arange(3)), Error);
  EXPECT_THROW(make_plan(experts - 1, at::arange(3)), Error);
  EXPECT_THROW(make_plan(experts, at::zeros({3}, at::kLong)), Error);
  EXPECT_THROW(make_plan(experts, at::arange(3) + 1), Error);
  EXPECT_THROW(make_plan(experts.to(at::kInt), at::arange(3)), Error);
}

TEST(Permute, CopiesEachTokenToItsRows) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = random({9, 5}, 1, dtype);
    const DispatchPlan plan = make_plan(random_routing(9, 6, 2, 2).experts, at::arange(6));
    const at::Tensor rows = permute(x, plan.order, 2);
    EXPECT_TRUE(at::equal(rows, x.index_select(0, plan.order.floor_divide(2))));
    EXPECT_TRUE(at::equal(permute(x, plan.order.narrow(0, 4, 7), 2), rows.narrow(0, 4, 7)));
  }
  EXPECT_THROW(permute(at::ones({2, 3}), at::tensor({4}, at::kLong), 2), Error);
  EXPECT_THROW(permute(at::ones({2, 3}), at::tensor({1}, at::kLong), 0), Error);
  EXPECT_EQ(permute(at::empty({0, 3}), at::empty({0}, at::kLong), 2).size(0), 0);
}

TEST(Permute, InverseFillsWindowsFromParts) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = random({9, 5}, 1, dtype);
    const DispatchPlan plan = make_plan(random_routing(9, 6, 2, 2).experts, at::arange(6));
    const at::Tensor whole = permute(x, plan.order, 2);
    for (const auto& [first, rows] : {std::pair{0, 18}, {0, 7}, {7, 0}, {7, 11}}) {
      const auto fill = [&](auto function) {
        const at::Tensor out = at::zeros({rows, 5}, dtype);
        for (const auto& [token, count] : {std::pair{0, 4}, {4, 0}, {4, 5}}) {
          function(out, x.narrow(0, token, count), plan.inverse.narrow(0, token * 2, count * 2), 2,
                   first);
        }
        return out;
      };
      EXPECT_TRUE(at::equal(fill(permute_by_inverse_out), whole.narrow(0, first, rows)));
      EXPECT_TRUE(
          at::equal(fill(tensor_ops::permute_by_inverse_out), whole.narrow(0, first, rows)));
    }
  }
}

TEST(Permute, SlotsWithoutARowAndRowsThatLieApart) {
  const at::Tensor x = random({3, 4}, 1), wide = at::zeros({4, 9});
  const at::Tensor inverse = at::tensor({2, -1, -1, -1, 0, 3}, at::kLong);
  permute_by_inverse_out(wide.narrow(1, 2, 4), x, inverse, 2);
  const at::Tensor expected = at::zeros({4, 9});
  for (const auto& [row, token] : {std::pair{2, 0}, {0, 2}, {3, 2}}) {
    expected[row].narrow(0, 2, 4).copy_(x[token]);
  }
  EXPECT_TRUE(at::equal(wide, expected));
  permute_out(wide.narrow(1, 5, 4), x, at::tensor({5, 0, 1, 3}, at::kLong), 2);
  EXPECT_TRUE(at::equal(wide.narrow(1, 5, 4), x.index_select(0, at::tensor({2, 0, 0, 1}))));
  EXPECT_THROW(permute_out(wide.narrow(1, 0, 3), x, at::arange(4), 2), Error);
  EXPECT_THROW(permute_by_inverse_out(wide.narrow(1, 0, 4), x, at::arange(5), 2), Error);
}

TEST(Unpermute, WeighsAndSumsInFp32) {
  for (const int64_t width : {1, 31, 32, 100}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const Routing routing = random_routing(12, 8, 3, 3);
      const DispatchPlan plan = make_plan(routing.experts, random_positions(8, 4));
      const at::Tensor rows = random({36, width}, 5, dtype);
      const at::Tensor found = unpermute(rows, plan.inverse, routing.weights);
      EXPECT_EQ(found.scalar_type(), dtype);
      EXPECT_TRUE(at::equal(found, tensor_ops::unpermute(rows, plan.inverse, routing.weights)));
      const at::Tensor slots = rows.to(at::kDouble).index_select(0, plan.inverse);
      const at::Tensor expected =
          (slots.view({12, 3, width}) * routing.weights.to(at::kDouble).unsqueeze(-1)).sum(1);
      EXPECT_LT(relative_error(found, expected), dtype == at::kFloat ? 1e-6 : 5e-3);
    }
  }
}

TEST(Unpermute, UndoesPermute) {
  const at::Tensor x = random({20, 17}, 1);
  const Routing routing = random_routing(20, 8, 2, 2);
  const DispatchPlan plan = make_plan(routing.experts, random_positions(8, 3));
  const at::Tensor weights = at::ones({20, 2}) * 0.5;
  EXPECT_TRUE(at::equal(unpermute(permute(x, plan.order, 2), plan.inverse, weights), x));
}

TEST(Unpermute, CutsChangeNoBit) {
  const Routing routing = random_routing(10, 8, 3, 1);
  const DispatchPlan plan = make_plan(routing.experts, at::arange(8));
  const at::Tensor rows = random({30, 40}, 2);
  const std::vector<at::Tensor> chunks = {rows.narrow(0, 0, 11).clone(), rows.narrow(0, 11, 0),
                                          rows.narrow(0, 11, 19).clone()};
  EXPECT_TRUE(at::equal(unpermute(chunks, plan.inverse, routing.weights),
                        unpermute(rows, plan.inverse, routing.weights)));
}

// A slot without a row adds nothing, whatever rows of others hold.
TEST(Unpermute, SlotsWithoutARowAddNothing) {
  const at::Tensor rows = random({3, 40}, 1), weights = random({2, 3}, 2);
  rows[0].fill_(std::numeric_limits<float>::infinity());
  const at::Tensor inverse = at::tensor({-1, 2, 1, -1, -1, -1}, at::kLong);
  const at::Tensor found = unpermute(rows, inverse, weights);
  EXPECT_TRUE(at::equal(found, tensor_ops::unpermute(rows, inverse, weights)));
  EXPECT_TRUE(at::equal(found[0], rows[2] * weights[0][1] + rows[1] * weights[0][2]));
  EXPECT_TRUE(at::equal(found[1], at::zeros({40})));
}

TEST(Unpermute, RefusesWhatDoesNotFit) {
  const at::Tensor rows = at::ones({4, 3}), inverse = at::arange(4), weights = at::ones({2, 2});
  EXPECT_THROW(unpermute(rows, inverse + 1, weights), Error);
  EXPECT_THROW(unpermute(rows, inverse - 2, weights), Error);
  EXPECT_THROW(unpermute(rows, at::arange(3), weights), Error);
  EXPECT_THROW(unpermute(rows, inverse, weights.to(at::kDouble)), Error);
  EXPECT_THROW(unpermute(std::vector<at::Tensor>{}, inverse, weights), Error);
  EXPECT_THROW(unpermute(std::vector<at::Tensor>{rows, at::ones({1, 2})}, inverse, weights), Error);
  EXPECT_EQ(unpermute(at::empty({0, 3}), at::empty({0}, at::kLong), at::empty({0, 2})).size(0), 0);
}

}  // namespace
}  // namespace farskip::testing
