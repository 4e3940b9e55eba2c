#include "farskip/cuda/rope.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sin.h>

#include <vector>

#include "farskip/base/error.h"
#include "farskip/nn/norm.h"
#include "farskip/nn/rope.h"
#include "gpu_test.h"

namespace farskip::testing {
namespace {

using CudaRope = GpuTest;

constexpr at::ScalarType dtypes[] = {at::kFloat, at::kBFloat16};

RopeTable table_of(int64_t tokens, int64_t pairs) {
  const at::Tensor angles = random({tokens, pairs}, 8) * 3;
  return {at::cos(angles), at::sin(angles)};
}

struct Shape {
  int64_t size, pairs;
};

// All of a head and parts of it; whole accesses, cut ones, and more than a warp's lanes hold.
constexpr Shape shapes[] = {{2, 1},   {10, 5},   {10, 3},    {64, 32},   {128, 64}, {128, 32},
                            {96, 40}, {192, 96}, {256, 128}, {512, 256}, {510, 101}};

TEST_F(CudaRope, GroupedHasTheBitsOfTheCpu) {
  for (const at::ScalarType dtype : dtypes) {
    for (const auto& [size, pairs] : shapes) {
      for (const bool interleaved : {false, true}) {
        for (const int64_t tokens : {0, 1, 9}) {
          // As a projection leaves them: q, k and v of a token beside each other.
          const at::Tensor qkv = random({tokens, 10 * size}, 1, dtype), moved = on_gpu(qkv);
          const RopeTable table = table_of(tokens, pairs);
          const auto heads = [&](const at::Tensor& x, int64_t first, int64_t count) {
            return x.narrow(1, first * size, count * size).unflatten(1, {count, size});
          };
          apply_rope_(heads(qkv, 0, 6), table, interleaved);
          apply_rope_(heads(qkv, 6, 2), table, interleaved);
          cuda::grouped_rope_(heads(moved, 0, 6), heads(moved, 6, 2), {}, {}, 1e-6,
                              on_gpu(table.cos), on_gpu(table.sin), interleaved);
          EXPECT_TRUE(same(moved, qkv)) << size << ", " << pairs << " pairs, " << tokens;
        }
      }
    }
  }
}

TEST_F(CudaRope, GroupedNormsBeforeItRotates) {
  for (const at::ScalarType dtype : dtypes) {
    for (const auto& [size, pairs] : shapes) {
      const at::Tensor q = random({7, 4, size}, 1, dtype), k = random({7, 1, size}, 2, dtype);
      const at::Tensor q_norm = random({size}, 3, dtype), k_norm = random({size}, 4, dtype);
      const at::Tensor moved_q = on_gpu(q), moved_k = on_gpu(k);
      const RopeTable table = table_of(7, pairs);
      cuda::grouped_rope_(moved_q, moved_k, on_gpu(q_norm), on_gpu(k_norm), 1e-5, on_gpu(table.cos),
                          on_gpu(table.sin), false);
      rms_norm_out(q, q, q_norm, 1e-5);
      rms_norm_out(k, k, k_norm, 1e-5);
      apply_rope_(q, table, false);
      apply_rope_(k, table, false);
      // Differences of products: an element may be small beside what it is made of.
      const double limit = dtype == at::kFloat ? 2e-6 : 1.0 / 64;
      EXPECT_LT(relative_error(moved_q.cpu(), q), limit) << size << ", " << pairs << " pairs";
      EXPECT_LT(relative_error(moved_k.cpu(), k), limit) << size << ", " << pairs << " pairs";
    }
  }
}

TEST_F(CudaRope, NormOfQAloneLeavesK) {
  const at::Tensor q = random({3, 2, 16}, 1), k = random({3, 2, 16}, 2);
  const at::Tensor moved_q = on_gpu(q), moved_k = on_gpu(k), weight = random({16}, 3);
  const RopeTable table = table_of(3, 4);
  cuda::grouped_rope_(moved_q, moved_k, on_gpu(weight), {}, 1e-5, on_gpu(table.cos),
                      on_gpu(table.sin), false);
  apply_rope_(k, table, false);
  EXPECT_TRUE(same(moved_k, k));
}

TEST_F(CudaRope, LatentHasTheBitsOfTheCpu) {
  for (const at::ScalarType dtype : dtypes) {
    for (const auto& [nope, pairs] : {std::pair{128, 32}, {16, 8}, {7, 5}, {24, 12}, {40, 1}}) {
      for (const bool interleaved : {true, false}) {
        for (const int64_t tokens : {0, 1, 11}) {
          const int64_t heads = 6, rotated = 2 * pairs, latent = 24;
          const at::Tensor q = random({tokens, heads, nope + rotated}, 1, dtype);
          const at::Tensor k = random({tokens, heads, nope + rotated}, 2, dtype);
          const at::Tensor compressed = random({tokens, latent + rotated}, 3, dtype);
          const RopeTable table = table_of(tokens, pairs);
          const at::Tensor moved_q = on_gpu(q), moved_k = on_gpu(k);
          cuda::latent_rope_(moved_q, moved_k, on_gpu(compressed).narrow(1, latent, rotated),
                             on_gpu(table.cos), on_gpu(table.sin), interleaved);
          apply_rope_(q.narrow(2, nope, rotated), table, interleaved);
          const at::Tensor shared = compressed.narrow(1, latent, rotated).unsqueeze(1);
          apply_rope_(shared, table, interleaved);
          EXPECT_TRUE(same(moved_q, q)) << nope << ", " << pairs << " pairs, " << tokens;
          k.narrow(2, nope, rotated).copy_(shared.expand({-1, heads, -1}));
          EXPECT_TRUE(same(moved_k, k)) << nope << ", " << pairs << " pairs, " << tokens;
        }
      }
    }
  }
}

TEST_F(CudaRope, TablesAreThoseOfTheCpu) {
  for (const int dims : {2, 64, 200, 512}) {
    RopeConfig config;
    config.dims = dims;
    config.theta = 1e4;
    config.scaling = RopeConfig::Scaling::linear;
    config.factor = 0.7;
    for (const at::Tensor& positions :
         {at::arange(0, at::kLong), at::arange(300, at::kLong) * 37}) {
      const RopeTable expected = rope_cos_sin(config, positions);
      const RopeTable found = rope_cos_sin(config, on_gpu(positions));
      EXPECT_LT(elementwise_error(found.cos, expected.cos, 1.0), 1e-6) << dims;
      EXPECT_LT(elementwise_error(found.sin, expected.sin, 1.0), 1e-6) << dims;
    }
  }
  const at::Tensor table = at::ones({2, 4}, at::kCUDA);
  const at::Tensor positions = at::arange(2, at::TensorOptions(at::kCUDA).dtype(at::kLong));
  const std::vector<float> four(4), five(5);
  cuda::rope_table_out(table, table, positions, four, 1);
  EXPECT_THROW(cuda::rope_table_out(table, table, positions, five, 1), Error);
  EXPECT_THROW(cuda::rope_table_out(table, table, positions.cpu(), four, 1), Error);
}

TEST_F(CudaRope, RefusesWhatDoesNotFit) {
  const at::Tensor q = at::ones({2, 1, 8}, at::kCUDA), table = at::ones({2, 4}, at::kCUDA);
  const at::Tensor wide = at::ones({2, 5}, at::kCUDA), odd = at::ones({2, 1, 9}, at::kCUDA);
  EXPECT_THROW(cuda::grouped_rope_(q, q, {}, {}, 1e-6, wide, wide, false), Error);
  EXPECT_THROW(cuda::grouped_rope_(q, q, {}, {}, 1e-6, table.cpu(), table, false), Error);
  EXPECT_THROW(cuda::grouped_rope_(q, q, at::ones({8}), {}, 1e-6, table, table, false), Error);
  EXPECT_THROW(cuda::grouped_rope_(odd, odd, {}, {}, 1e-6, table, table, false), UnsupportedError);
  const at::Tensor rotates = at::ones({2, 8}, at::kCUDA);
  cuda::latent_rope_(q, q.clone(), rotates, table, table, true);
  EXPECT_THROW(cuda::latent_rope_(q, q, q, table, table, true), Error);
  EXPECT_THROW(cuda::latent_rope_(q, q, at::ones({2, 10}, at::kCUDA), wide, wide, true), Error);
  EXPECT_THROW(cuda::latent_rope_(q, odd, rotates, table, table, true), Error);
}

}  // namespace
}  // namespace farskip::testing
