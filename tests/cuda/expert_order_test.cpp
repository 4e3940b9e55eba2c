#include "farskip/cuda/expert_order.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "farskip/base/random.h"
#include "farskip/cuda/permutation.h"
#include "gpu_test.h"

namespace farskip::cuda {
namespace {

class ExpertOrders : public testing::GpuTest {};

struct Expected {
  std::vector<int64_t> order, inverse;
  std::vector<int> ends;
};

Expected expected_of(const std::vector<std::vector<int64_t>>& counts) {
  std::vector<std::vector<int64_t>> firsts = counts;
  int64_t rows = 0;
  for (size_t r = 0; r < counts.size(); ++r) {
    for (size_t e = 0; e < counts[r].size(); ++e) {
      firsts[r][e] = rows;
      rows += counts[r][e];
    }
  }
  Expected expected{.order = {}, .inverse = std::vector<int64_t>(rows), .ends = {}};
  for (size_t e = 0; e < counts[0].size(); ++e) {
    for (size_t r = 0; r < counts.size(); ++r) {
      for (int64_t i = 0; i < counts[r][e]; ++i) {
        expected.inverse[firsts[r][e] + i] = static_cast<int64_t>(expected.order.size());
        expected.order.push_back(firsts[r][e] + i);
      }
    }
    expected.ends.push_back(static_cast<int>(expected.order.size()));
  }
  return expected;
}

at::Tensor tensor_of(const std::vector<std::vector<int64_t>>& counts) {
  std::vector<int64_t> flat;
  for (const auto& row : counts) flat.insert(flat.end(), row.begin(), row.end());
  return at::tensor(flat, at::kLong).view({static_cast<int64_t>(counts.size()), -1});
}

TEST_F(ExpertOrders, AreThoseOfTheCpu) {
  Random random(5);
  for (const auto& [ranks, experts] :
       std::vector<std::pair<int, int>>{{2, 2}, {8, 32}, {3, 7}, {64, 64}, {1, 5}, {6, 1}}) {
    std::vector<std::vector<int64_t>> counts(ranks, std::vector<int64_t>(experts));
    int64_t rows = 0;
    for (auto& row : counts) {
      for (int64_t& count : row) {
        count = random.uniform(0, 1) < 0.3 ? 0 : static_cast<int64_t>(random.uniform(0, 90));
        rows += count;
      }
    }
    const Expected expected = expected_of(counts);
    // A chunk's counts are columns of a larger table.
    const at::Tensor wide = at::cat({tensor_of(counts), tensor_of(counts)}, 1).to(at::kCUDA);
    const ExpertOrder found = order_by_expert(wide.narrow(1, 0, experts), rows);
    EXPECT_TRUE(at::equal(found.ends.cpu(), at::tensor(expected.ends, at::kInt)));
    if (ranks == 1 || experts == 1) {
      EXPECT_FALSE(found.order.defined());
      continue;
    }
    EXPECT_TRUE(at::equal(found.order.cpu(), at::tensor(expected.order, at::kLong)));
    EXPECT_TRUE(at::equal(found.inverse.cpu(), at::tensor(expected.inverse, at::kLong)));
  }
}

// Behind the last row nothing comes, and nothing is gathered.
TEST_F(ExpertOrders, LeaveRoomBehindTheLastRow) {
  const std::vector<std::vector<int64_t>> counts = {{3, 0, 5}, {0, 4, 2}};
  const Expected expected = expected_of(counts);
  const int64_t rows = 14, room = 5000;
  const ExpertOrder found = order_by_expert(tensor_of(counts).to(at::kCUDA), room);
  EXPECT_TRUE(at::equal(found.ends.cpu(), at::tensor(expected.ends, at::kInt)));
  for (const auto& [tensor, there] :
       {std::pair(found.order, expected.order), std::pair(found.inverse, expected.inverse)}) {
    ASSERT_EQ(tensor.size(0), room);
    EXPECT_TRUE(at::equal(tensor.narrow(0, 0, rows).cpu(), at::tensor(there, at::kLong)));
    EXPECT_TRUE(tensor.narrow(0, rows, room - rows).eq(-1).all().item<bool>());
  }
  const at::Tensor x = at::arange(room * 8, at::TensorOptions(at::kCUDA).dtype(at::kFloat));
  const at::Tensor out = at::zeros({room, 8}, x.options());
  permute_out(out, x.view({room, 8}), found.order, 1);
  const at::Tensor wanted = x.view({room, 8}).index_select(0, found.order.narrow(0, 0, rows));
  EXPECT_TRUE(at::equal(out.narrow(0, 0, rows), wanted));
  EXPECT_EQ(out.narrow(0, rows, room - rows).abs().sum().item<float>(), 0);
}

TEST_F(ExpertOrders, TakeNoRows) {
  const at::Tensor none = at::zeros({4, 3}, at::TensorOptions(at::kLong).device(at::kCUDA));
  const ExpertOrder found = order_by_expert(none, 0);
  EXPECT_EQ(found.order.size(0), 0);
  EXPECT_EQ(found.ends.sum().item<int64_t>(), 0);
}

}  // namespace
}  // namespace farskip::cuda
