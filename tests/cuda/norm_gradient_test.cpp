#include "farskip/cuda/norm_gradient.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>

#include "farskip/base/error.h"
#include "farskip/nn/norm_gradient.h"
#include "gpu_test.h"

namespace farskip::testing {
namespace {

using CudaNormGradient = GpuTest;

constexpr double eps = 1e-5;

// What the CPU makes, computed in fp64.
at::Tensor by_input(const at::Tensor& d, const at::Tensor& x, const at::Tensor& weight) {
  const at::Tensor out = at::empty_like(x, x.options().dtype(at::kDouble));
  rms_norm_gradient_out(out, d.to(at::kDouble), x.to(at::kDouble), weight.to(at::kDouble), eps);
  return out;
}

at::Tensor by_weight(const at::Tensor& d, const at::Tensor& x) {
  const at::Tensor sum = at::empty({x.size(-1)}, at::kDouble);
  rms_norm_weight_gradient({sum}, d.to(at::kDouble), x.to(at::kDouble), eps);
  return sum;
}

double scaled_error(const at::Tensor& found, const at::Tensor& expected) {
  if (expected.numel() == 0) return 0.0;
  const at::Tensor wide = found.cpu().to(at::kDouble);
  return ((wide - expected).abs().max() / (expected.abs().max() + 1)).item<double>();
}

TEST_F(CudaNormGradient, MatchesTheCpuAtEveryWidth) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t width : {1, 7, 8, 128, 250, 512, 1024, 2048, 2050, 4096, 7168, 8191}) {
      for (const int64_t rows : {0, 1, 13, 1500}) {
        SCOPED_TRACE(std::to_string(rows) + " rows of " + std::to_string(width));
        const at::Tensor x = random({rows, width}, 1, dtype), d = random({rows, width}, 2, dtype),
                         weight = random({width}, 3, dtype);
        const at::Tensor out = poisoned({rows, width}, dtype);
        cuda::rms_norm_gradient_out(out, on_gpu(d), on_gpu(x), on_gpu(weight), eps);
        EXPECT_LT(scaled_error(out, by_input(d, x, weight)), dtype == at::kFloat ? 1e-5 : 1e-2);
        const at::Tensor sum = cuda::rms_norm_weight_gradient(on_gpu(d), on_gpu(x), eps);
        EXPECT_LT(scaled_error(sum, by_weight(d, x)), 1e-5);
      }
    }
  }
}

TEST_F(CudaNormGradient, TakesPartsOfLargerTensors) {
  for (const int64_t dim : {10, 128}) {
    const auto heads = [&](const at::Tensor& x) {
      return x.narrow(1, 3, 4 * dim).unflatten(1, {4, dim});
    };
    const at::Tensor x = random({6, 5 + 4 * dim}, 1), d = random({6, 4 * dim + 9}, 2),
                     weight = random({dim}, 3);
    const at::Tensor out = on_gpu(at::ones({6, 4 * dim + 3}));
    cuda::rms_norm_gradient_out(heads(out), heads(on_gpu(d)), heads(on_gpu(x)), on_gpu(weight),
                                eps);
    EXPECT_LT(scaled_error(heads(out), by_input(heads(d), heads(x), weight)), 1e-5);
    EXPECT_TRUE(out.narrow(1, 0, 3).eq(1).all().item<bool>());
    const at::Tensor sum = cuda::rms_norm_weight_gradient(heads(on_gpu(d)), heads(on_gpu(x)), eps);
    EXPECT_LT(scaled_error(sum, by_weight(heads(d), heads(x))), 1e-5);
  }
}

TEST_F(CudaNormGradient, HasTheSameBitsInEveryRun) {
  const at::Tensor x = on_gpu(random({3000, 2048}, 1, at::kBFloat16)),
                   d = on_gpu(random({3000, 2048}, 2, at::kBFloat16));
  EXPECT_TRUE(at::equal(cuda::rms_norm_weight_gradient(d, x, eps),
                        cuda::rms_norm_weight_gradient(d, x, eps)));
}

TEST_F(CudaNormGradient, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::ones({2, 8}, at::kCUDA), weight = at::ones({8}, at::kCUDA);
  EXPECT_THROW(cuda::rms_norm_gradient_out(x, x.narrow(0, 0, 1), x, weight, eps), Error);
  EXPECT_THROW(cuda::rms_norm_gradient_out(x, x, x, weight.narrow(0, 0, 7), eps), Error);
  EXPECT_THROW(cuda::rms_norm_weight_gradient(x, x.to(at::kBFloat16), eps), Error);
  EXPECT_THROW(cuda::rms_norm_weight_gradient(x.cpu(), x, eps), Error);
  const at::Tensor wide = at::ones({1, 8200}, at::kCUDA);
  EXPECT_THROW(cuda::rms_norm_weight_gradient(wide, wide, eps), UnsupportedError);
}

}  // namespace
}  // namespace farskip::testing
