#include "farskip/cuda/mlp.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "farskip/base/error.h"
#include "farskip/nn/mlp.h"
#include "farskip/nn/mlp_gradient.h"
#include "gpu_test.h"

namespace farskip::testing {
namespace {

using CudaMlp = GpuTest;

TEST_F(CudaMlp, MatchesTheCpu) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t width : {1, 3, 8, 44, 100, 1408}) {
      for (const int64_t rows : {0, 1, 77}) {
        const at::Tensor gate_up = random({rows, 2 * width}, 1, dtype) * 6;
        const at::Tensor expected = at::empty({rows, width}, gate_up.options());
        silu_multiply_out(expected, gate_up);
        const at::Tensor out = poisoned({rows, width}, dtype);
        cuda::silu_multiply_out(out, on_gpu(gate_up));
        EXPECT_LT(elementwise_error(out, expected), tolerance(dtype)) << rows << " x " << width;
      }
    }
  }
}

// Every finite bf16 number as the gate.
TEST_F(CudaMlp, RoundsLikeTheCpu) {
  const at::Tensor bits = at::arange(-32768, 32768, at::kInt).to(at::kShort);
  const at::Tensor all = bits.view(at::kBFloat16);
  const at::Tensor gate = at::where(all.isfinite(), all, at::zeros_like(all)).unsqueeze(1);
  const at::Tensor gate_up = at::cat({gate, at::ones_like(gate)}, 1);
  const at::Tensor expected = at::empty_like(gate), out = poisoned(gate.sizes(), at::kBFloat16);
  silu_multiply_out(expected, gate_up);
  cuda::silu_multiply_out(out, on_gpu(gate_up));
  EXPECT_LT(elementwise_error(out, expected, 1e-30), 1.0 / 100);
  // Few fall to the other side of a rounding.
  EXPECT_LT((out.cpu() != expected).sum().item<int64_t>(), 400);
}

TEST_F(CudaMlp, RowsAreIndependent) {
  const at::Tensor gate_up = on_gpu(random({300, 2816}, 1, at::kBFloat16));
  const at::Tensor whole = poisoned({300, 1408}, at::kBFloat16);
  cuda::silu_multiply_out(whole, gate_up);
  for (const int64_t row : {0, 17, 299}) {
    const at::Tensor one = poisoned({1, 1408}, at::kBFloat16);
    cuda::silu_multiply_out(one, gate_up.narrow(0, row, 1));
    EXPECT_TRUE(at::equal(one, whole.narrow(0, row, 1)));
  }
}

// As many as a number on the device says.
TEST_F(CudaMlp, LeavesRowsAloneThatAreNotThere) {
  const at::Tensor gate_up = on_gpu(random({77, 88}, 1, at::kBFloat16));
  const at::Tensor whole = poisoned({77, 44}, at::kBFloat16);
  cuda::silu_multiply_out(whole, gate_up);
  for (const int rows : {0, 1, 40, 77, 1000}) {
    const at::Tensor out = at::ones({77, 44}, whole.options());
    cuda::silu_multiply_out(out, gate_up, on_gpu(at::ones({1}, at::kInt) * rows));
    const int64_t there = std::min(rows, 77);
    EXPECT_TRUE(at::equal(out.narrow(0, 0, there), whole.narrow(0, 0, there))) << rows;
    const at::Tensor behind = out.narrow(0, there, 77 - there);
    EXPECT_TRUE(at::equal(behind, at::ones_like(behind))) << rows;
  }
  EXPECT_THROW(cuda::silu_multiply_out(whole, gate_up, on_gpu(at::ones({2}, at::kInt))), Error);
  EXPECT_THROW(cuda::silu_multiply_out(whole, gate_up, on_gpu(at::ones({1}, at::kLong))), Error);
}

TEST_F(CudaMlp, GradientMatchesTheCpu) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t width : {1, 3, 8, 44, 100, 1408}) {
      for (const int64_t rows : {0, 1, 77}) {
        SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(width));
        const at::Tensor gate_up = random({rows, 2 * width}, 1, dtype) * 6;
        const at::Tensor d = random({rows, width}, 2, dtype);
        const SiluGradient expected =
            silu_multiply_gradient(d.to(at::kFloat), gate_up.to(at::kFloat));
        const at::Tensor deltas = poisoned({rows, 2 * width}, dtype);
        const at::Tensor activated = poisoned({rows, width}, dtype);
        cuda::silu_multiply_gradient_out(deltas, activated, on_gpu(d), on_gpu(gate_up));
        const double most = dtype == at::kFloat ? 1e-5 : 1.0 / 64;
        EXPECT_LT(elementwise_error(deltas, expected.deltas, 0.1), most);
        EXPECT_LT(elementwise_error(activated, expected.activated, 0.1), most);
        const at::Tensor once = poisoned({rows, width}, dtype);
        cuda::silu_multiply_out(once, on_gpu(gate_up));
        EXPECT_TRUE(at::equal(once, activated));
      }
    }
  }
}

TEST_F(CudaMlp, RefusesWhatDoesNotFit) {
  const at::Tensor out = at::ones({2, 4}, at::kCUDA);
  EXPECT_THROW(cuda::silu_multiply_out(out, at::ones({2, 7}, at::kCUDA)), Error);
  EXPECT_THROW(cuda::silu_multiply_out(out, at::ones({8, 2}, at::kCUDA).t()), Error);
  EXPECT_THROW(cuda::silu_multiply_out(out, at::ones({2, 8})), Error);
}

}  // namespace
}  // namespace farskip::testing
