#include "farskip/cuda/permutation_gradient.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "farskip/base/error.h"
#include "farskip/nn/permutation_gradient.h"
#include "gpu_test.h"

namespace farskip::testing {
namespace {

using CudaPermutationGradient = GpuTest;

constexpr at::ScalarType dtypes[] = {at::kFloat, at::kBFloat16};

// Where rows of T tokens lie: in any order, every fifth slot without one.
at::Tensor make_inverse(int64_t tokens, int64_t top_k) {
  const int64_t slots = tokens * top_k;
  return ((at::arange(slots, at::kLong) * 7919) % std::max<int64_t>(slots, 1))
      .masked_fill(at::arange(slots, at::kLong) % 5 == 3, -1);
}

TEST_F(CudaPermutationGradient, OfRowsHasTheBitsOfTheCpu) {
  for (const at::ScalarType dtype : dtypes) {
    for (const int64_t top_k : {1, 2, 6, 8, 9, 32}) {
      for (const int64_t tokens : {0, 1, 21, 300}) {
        for (const int64_t width : {1, 8, 136, 250, 2048}) {
          const at::Tensor inverse = make_inverse(tokens, top_k);
          const at::Tensor d = random({tokens, width}, 1, dtype);
          const at::Tensor weights = random({tokens, top_k}, 2);
          const at::Tensor expected = at::zeros({tokens * top_k, width}, d.options());
          unpermute_gradient_out(expected, d, inverse, weights);
          const at::Tensor out = on_gpu(at::zeros_like(expected));
          cuda::unpermute_gradient_out(out, on_gpu(d), on_gpu(inverse), on_gpu(weights));
          EXPECT_TRUE(same(out, expected)) << top_k << " of " << tokens << " x " << width;
        }
      }
    }
  }
}

TEST_F(CudaPermutationGradient, OfWeightsMatchesTheCpu) {
  for (const at::ScalarType dtype : dtypes) {
    for (const int64_t top_k : {1, 2, 3, 4, 6, 8, 9, 32}) {
      for (const int64_t tokens : {0, 1, 21, 300}) {
        for (const int64_t width : {1, 8, 136, 250, 2048}) {
          const at::Tensor inverse = make_inverse(tokens, top_k);
          const at::Tensor d = random({tokens, width}, 1, dtype);
          const at::Tensor rows = random({tokens * top_k, width}, 2, dtype);
          const at::Tensor expected =
              routing_weights_gradient(d.to(at::kFloat), rows.to(at::kFloat), inverse, top_k);
          const at::Tensor out = poisoned({tokens, top_k}, at::kFloat);
          cuda::routing_weights_gradient_out(out, on_gpu(d), on_gpu(rows), on_gpu(inverse));
          EXPECT_LT(elementwise_error(out, expected, 10.0), 1e-5)
              << top_k << " of " << tokens << " x " << width;
        }
      }
    }
  }
}

TEST_F(CudaPermutationGradient, RefusesWhatDoesNotFit) {
  const at::Tensor d = at::ones({2, 8}, at::kCUDA), rows = at::ones({4, 8}, at::kCUDA);
  const at::Tensor inverse = at::arange(4, at::TensorOptions(at::kCUDA).dtype(at::kLong));
  const at::Tensor weights = at::ones({2, 2}, at::kCUDA);
  EXPECT_THROW(cuda::unpermute_gradient_out(rows, d, inverse.narrow(0, 0, 3), weights), Error);
  EXPECT_THROW(cuda::unpermute_gradient_out(rows.narrow(1, 0, 7), d, inverse, weights), Error);
  EXPECT_THROW(cuda::unpermute_gradient_out(rows.to(at::kBFloat16), d, inverse, weights), Error);
  EXPECT_THROW(cuda::routing_weights_gradient_out(weights.cpu(), d, rows, inverse), Error);
  const at::Tensor many = at::ones({2, 33}, at::kCUDA);
  const at::Tensor slots = at::zeros({66}, inverse.options());
  EXPECT_THROW(cuda::routing_weights_gradient_out(many, d, rows, slots), UnsupportedError);
}

}  // namespace
}  // namespace farskip::testing
