#include "farskip/cuda/norm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>

#include <vector>

#include "farskip/base/error.h"
#include "farskip/nn/norm.h"
#include "gpu_test.h"

namespace farskip::testing {
namespace {

using CudaSum = GpuTest;
using CudaNorm = GpuTest;

constexpr at::ScalarType dtypes[] = {at::kFloat, at::kBFloat16};

// Widths of every path: one warp a row, a block a row, packs cut short, none cut.
constexpr int64_t widths[] = {1, 7, 8, 40, 128, 250, 512, 1000, 1024, 2048, 2050, 4096, 7168, 8191};

std::vector<at::Tensor> terms_of(int64_t count, at::IntArrayRef shape, at::ScalarType dtype) {
  std::vector<at::Tensor> terms;
  for (int64_t i = 0; i < count; ++i) terms.push_back(random(shape, 10 + i, dtype));
  return terms;
}

std::vector<at::Tensor> on_gpu(const std::vector<at::Tensor>& tensors) {
  std::vector<at::Tensor> moved;
  for (const at::Tensor& tensor : tensors) moved.push_back(tensor.to(at::kCUDA));
  return moved;
}

// Left to right, each sum rounded to the dtype.
at::Tensor plain_sum(const std::vector<at::Tensor>& terms) {
  at::Tensor sum = terms[0];
  for (size_t i = 1; i < terms.size(); ++i) sum = sum + terms[i];
  return sum;
}

TEST_F(CudaSum, HasTheBitsOfTheCpu) {
  for (const at::ScalarType dtype : dtypes) {
    for (const int64_t count : {1, 2, 3, 5, 8, 9, 20}) {
      for (const int64_t rows : {0, 1, 3, 257}) {
        const std::vector<at::Tensor> terms = terms_of(count, {rows, 129}, dtype);
        const at::Tensor out = poisoned({rows, 129}, dtype);
        cuda::sum_out(out, on_gpu(terms));
        EXPECT_TRUE(same(out, plain_sum(terms))) << count << " terms, " << rows << " rows";
      }
      const std::vector<at::Tensor> terms = terms_of(count, {64, 512}, dtype);
      std::vector<at::Tensor> moved = on_gpu(terms);
      cuda::sum_out(moved[0], moved);
      EXPECT_TRUE(same(moved[0], plain_sum(terms))) << "in place, " << count << " terms";
    }
  }
}

TEST_F(CudaSum, TakesTensorsThatAreNotAligned) {
  const at::Tensor x = random({1000}, 1, at::kBFloat16), y = random({1001}, 2, at::kBFloat16);
  const at::Tensor out = poisoned({1000}, at::kBFloat16);
  cuda::sum_out(out, std::vector<at::Tensor>{x.to(at::kCUDA), y.to(at::kCUDA).narrow(0, 1, 1000)});
  EXPECT_TRUE(same(out, x + y.narrow(0, 1, 1000)));
}

TEST_F(CudaNorm, MatchesTheCpuAtEveryWidth) {
  for (const at::ScalarType dtype : dtypes) {
    for (const int64_t width : widths) {
      for (const int64_t rows : {0, 1, 13}) {
        const at::Tensor x = random({rows, width}, 1, dtype), weight = random({width}, 2, dtype);
        const at::Tensor out = poisoned({rows, width}, dtype);
        cuda::rms_norm_out(out, x.to(at::kCUDA), weight.to(at::kCUDA), 1e-5);
        EXPECT_LT(elementwise_error(out, rms_norm(x, weight, 1e-5)), tolerance(dtype))
            << rows << " rows of " << width;
      }
    }
  }
}

TEST_F(CudaNorm, NormsPartsOfLargerTensorsInPlace) {
  for (const int64_t dim : {10, 128}) {
    const at::Tensor buffer = random({6, 2 + 4 * dim}, 3), weight = random({dim}, 4);
    const at::Tensor moved = buffer.to(at::kCUDA);
    const auto heads = [&](const at::Tensor& x) {
      return x.narrow(1, 1, 4 * dim).unflatten(1, {4, dim});
    };
    rms_norm_out(heads(buffer), heads(buffer), weight, 1e-5);
    cuda::rms_norm_out(heads(moved), heads(moved), weight.to(at::kCUDA), 1e-5);
    EXPECT_LT(elementwise_error(moved, buffer), 2e-6);
  }
}

TEST_F(CudaNorm, SumAndNormInOnePass) {
  for (const at::ScalarType dtype : dtypes) {
    for (const int64_t width : widths) {
      for (const int64_t count : {1, 2, 3, 4, 10}) {
        const std::vector<at::Tensor> terms = terms_of(count, {9, width}, dtype);
        const at::Tensor weight = random({width}, 2, dtype), expected = plain_sum(terms);
        const at::Tensor sum = poisoned({9, width}, dtype), normed = poisoned({9, width}, dtype);
        cuda::sum_rms_norm_out(sum, normed, on_gpu(terms), weight.to(at::kCUDA), 1e-6);
        EXPECT_TRUE(same(sum, expected)) << count << " terms of " << width;
        EXPECT_LT(elementwise_error(normed, rms_norm(expected, weight, 1e-6)), tolerance(dtype));
        const at::Tensor alone = poisoned({9, width}, dtype);
        cuda::sum_rms_norm_out({}, alone, on_gpu(terms), weight.to(at::kCUDA), 1e-6);
        EXPECT_TRUE(at::equal(alone, normed)) << "where the sum is not stored";
      }
    }
  }
}

TEST_F(CudaNorm, RowsAreIndependentAndRunsAgree) {
  const at::Tensor weight = random({2048}, 2, at::kBFloat16).to(at::kCUDA);
  const std::vector<at::Tensor> terms = on_gpu(terms_of(2, {5000, 2048}, at::kBFloat16));
  const at::Tensor sum = at::empty_like(terms[0]), whole = at::empty_like(sum);
  const at::Tensor again = at::empty_like(sum);
  cuda::sum_rms_norm_out(sum, whole, terms, weight, 1e-6);
  cuda::sum_rms_norm_out(sum, again, terms, weight, 1e-6);
  EXPECT_TRUE(at::equal(whole, again));
  for (const int64_t row : {0, 1, 1056, 4999}) {
    const at::Tensor one = at::empty_like(sum.narrow(0, row, 1));
    cuda::rms_norm_out(one, sum.narrow(0, row, 1), weight, 1e-6);
    EXPECT_TRUE(at::equal(one, whole.narrow(0, row, 1))) << row;
  }
}

TEST_F(CudaNorm, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::ones({2, 8}, at::kCUDA), weight = at::ones({8}, at::kCUDA);
  EXPECT_THROW(cuda::rms_norm_out(x, x, at::ones({7}, at::kCUDA), 1e-6), Error);
  EXPECT_THROW(cuda::rms_norm_out(x, x, at::ones({8}), 1e-6), Error);
  EXPECT_THROW(cuda::rms_norm_out(x, x, at::Tensor(), 1e-6), Error);
  EXPECT_THROW(cuda::rms_norm_out(x.cpu(), x.cpu(), weight, 1e-6), Error);
  EXPECT_THROW(cuda::rms_norm_out(x.t(), x.t(), at::ones({2}, at::kCUDA), 1e-6), Error);
  EXPECT_THROW(cuda::sum_out(x, std::vector<at::Tensor>{}), Error);
  EXPECT_THROW(cuda::sum_out(x, std::vector<at::Tensor>{x.to(at::kHalf)}), Error);
  const at::Tensor half = x.to(at::kHalf), wide = at::ones({1, 40000}, at::kCUDA);
  EXPECT_THROW(cuda::sum_out(half, std::vector<at::Tensor>{half}), UnsupportedError);
  EXPECT_THROW(cuda::rms_norm_out(wide, wide, at::ones({40000}, at::kCUDA), 1e-6),
               UnsupportedError);
}

}  // namespace
}  // namespace farskip::testing
