#include "farskip/cuda/permutation.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/nn/packets.h"
#include "farskip/nn/permutation.h"
#include "farskip/nn/quantize.h"
#include "farskip/nn/router.h"
#include "gpu_test.h"

namespace farskip::testing {
namespace {

using CudaPermute = GpuTest;
using CudaUnpermute = GpuTest;

constexpr at::ScalarType dtypes[] = {at::kFloat, at::kBFloat16};
constexpr int64_t widths[] = {1, 7, 8, 40, 130, 1024, 2048, 7168};

struct Case {
  Routing routing;
  DispatchPlan plan;
};

Case make_case(int64_t tokens, int experts, int top_k) {
  RouterConfig config;
  config.experts = experts;
  config.top_k = top_k;
  const Routing routing = choose_experts(config, random({tokens, experts}, 7), {});
  return {routing, make_plan(routing.experts, at::arange(experts - 1, -1, -1, at::kLong))};
}

TEST_F(CudaPermute, BothFormsMatchTheCpu) {
  for (const at::ScalarType dtype : dtypes) {
    for (const int64_t tokens : {0, 1, 33}) {
      for (const int64_t width : widths) {
        const Case c = make_case(tokens, 12, 5);
        const at::Tensor x = random({tokens, width}, 1, dtype);
        const at::Tensor expected = permute(x, c.plan.order, 5);
        const at::Tensor gathered = poisoned({tokens * 5, width}, dtype);
        cuda::permute_out(gathered, on_gpu(x), on_gpu(c.plan.order), 5);
        EXPECT_TRUE(same(gathered, expected)) << tokens << " x " << width;
        const at::Tensor scattered = poisoned({tokens * 5, width}, dtype);
        cuda::permute_by_inverse_out(scattered, on_gpu(x), on_gpu(c.plan.inverse), 5);
        EXPECT_TRUE(same(scattered, expected)) << tokens << " x " << width;
      }
    }
  }
}

TEST_F(CudaPermute, PartsOfThePermutation) {
  const Case c = make_case(50, 8, 3);
  const at::Tensor x = random({50, 96}, 1, at::kBFloat16);
  const at::Tensor expected = permute(x, c.plan.order, 3);
  for (const auto& [first, rows] : {std::pair{0, 150}, {0, 20}, {20, 0}, {20, 77}, {97, 53}}) {
    const at::Tensor out = poisoned({rows, 96}, at::kBFloat16);
    cuda::permute_by_inverse_out(out, on_gpu(x), on_gpu(c.plan.inverse), 3, first);
    EXPECT_TRUE(same(out, expected.narrow(0, first, rows))) << first << ", " << rows;
    out.fill_(NAN);
    cuda::permute_out(out, on_gpu(x), on_gpu(c.plan.order).narrow(0, first, rows), 3);
    EXPECT_TRUE(same(out, expected.narrow(0, first, rows))) << first << ", " << rows;
  }
}

TEST_F(CudaPermute, CastsAndTakesStridedRows) {
  const Case c = make_case(20, 8, 2);
  for (const int64_t width : {24, 30}) {
    const at::Tensor wide = random({20, width + 9}, 1);
    for (const at::ScalarType from : dtypes) {
      for (const at::ScalarType to : dtypes) {
        const at::Tensor x = wide.to(from).narrow(1, 8, width);
        const at::Tensor out = poisoned({40, width}, to);
        cuda::permute_by_inverse_out(out, on_gpu(wide.to(from)).narrow(1, 8, width),
                                     on_gpu(c.plan.inverse), 2);
        EXPECT_TRUE(same(out, permute(x, c.plan.order, 2).to(to)));
      }
    }
  }
}

// Scales exactly, elements within one step of e4m3 (three bits of mantissa).
TEST_F(CudaPermute, QuantizesBlocksToFp8) {
  for (const at::ScalarType dtype : dtypes) {
    for (const int64_t width : {128, 640, 2048, 7168}) {
      const Case c = make_case(19, 8, 3);
      at::Tensor x = random({19, width}, 1, dtype) * at::arange(1, 20).unsqueeze(1).to(dtype);
      x.narrow(1, 0, 128).select(0, 3).zero_();
      const at::Tensor out = poisoned({57, width}, at::kFloat8_e4m3fn);
      const at::Tensor scales = poisoned({57, width / 128}, at::kFloat);
      cuda::permute_quantized_out(out, scales, on_gpu(x), on_gpu(c.plan.inverse), 3);
      const at::Tensor rows = permute(x, c.plan.order, 3).to(at::kFloat).view({57, -1, 128});
      const at::Tensor expected_scales = rows.abs().amax(-1).clamp_min(1e-30) / 448.0;
      EXPECT_LT(elementwise_error(scales, expected_scales, 1e-40), 3e-7);
      const at::Tensor found = out.cpu().to(at::kFloat).view({57, -1, 128});
      const at::Tensor scaled = rows / expected_scales.unsqueeze(-1);
      // Half a step of a normal number is 1/16 of it, of a subnormal one 2^-10.
      EXPECT_LT(elementwise_error(found, scaled, 1.0 / 64), 1.0 / 15);
      const at::Tensor exact = scaled.to(at::kFloat8_e4m3fn).to(at::kFloat);
      EXPECT_LT((found != exact).sum().item<int64_t>(), 1 + found.numel() / 1000);
    }
  }
}

// As packets hold them: values, then scales, then more.
TEST_F(CudaPermute, QuantizesToAndFromRowsThatLieApart) {
  for (const at::ScalarType dtype : dtypes) {
    for (const int64_t width : {128, 640, 7168}) {
      const int64_t bytes = width + width / 32 + 64;
      const PacketLayout layout{.width = width, .scaled = true};
      at::Tensor x = random({21, width}, 1, dtype);
      x.select(0, 3).zero_();
      const auto packed = [&](const at::Tensor& rows) {
        const at::Tensor packets =
            at::full({21, (bytes + 15) / 16 * 16}, 0x55, rows.options().dtype(at::kByte));
        const at::Tensor own = packets.narrow(1, 0, layout.bytes());
        quantize_out(packet_values(own, layout, dtype), packet_scales(own, layout), rows);
        return packets;
      };
      const at::Tensor found = packed(on_gpu(x)), expected = packed(x);
      const int64_t differ = (found.cpu() != expected).sum().item<int64_t>();
      EXPECT_LT(differ, 1 + found.numel() / 500);  // a rounding of x / scale in a thousand
      const at::Tensor own = found.narrow(1, 0, layout.bytes());
      const at::Tensor rows = poisoned({21, width}, dtype), on_cpu = at::empty({21, width}, dtype);
      unpack_rows_out(rows, own, layout);
      unpack_rows_out(on_cpu, own.cpu(), layout);
      EXPECT_TRUE(same(rows, on_cpu)) << width;
    }
  }
}

TEST_F(CudaPermute, SlotsWithoutARowAndOutputsThatLieApart) {
  for (const at::ScalarType dtype : dtypes) {
    for (const int64_t width : {8, 30, 2048}) {
      const at::Tensor x = random({3, width}, 1, dtype);
      const at::Tensor inverse = at::tensor({2, -1, -1, -1, 0, 3}, at::kLong);
      const at::Tensor expected = at::zeros({4, width + 24}, dtype);
      permute_by_inverse_out(expected.narrow(1, 8, width), x, inverse, 2);
      const at::Tensor out = on_gpu(at::zeros({4, width + 24}, dtype));
      cuda::permute_by_inverse_out(out.narrow(1, 8, width), on_gpu(x), on_gpu(inverse), 2);
      EXPECT_TRUE(same(out, expected)) << width;
      const at::Tensor order = at::tensor({5, 0, 1, 3}, at::kLong);
      permute_out(expected.narrow(1, 16, width), x, order, 2);
      cuda::permute_out(out.narrow(1, 16, width), on_gpu(x), on_gpu(order), 2);
      EXPECT_TRUE(same(out, expected)) << width;
    }
  }
}

TEST_F(CudaPermute, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::ones({2, 8}, at::kCUDA), out = at::ones({4, 8}, at::kCUDA);
  const at::Tensor order = at::arange(4, at::TensorOptions(at::kCUDA).dtype(at::kLong));
  EXPECT_THROW(cuda::permute_out(out, x, order.narrow(0, 0, 3), 2), Error);
  EXPECT_THROW(cuda::permute_out(out, x, order.to(at::kInt), 2), Error);
  EXPECT_THROW(cuda::permute_out(out, x, order, 0), Error);
  EXPECT_THROW(cuda::permute_by_inverse_out(out, x, order, 3), Error);
  EXPECT_THROW(cuda::permute_by_inverse_out(out, x, order, 2, -1), Error);
  EXPECT_THROW(cuda::permute_quantized_out(out.to(at::kFloat8_e4m3fn), out, x, order, 2), Error);
}

TEST_F(CudaUnpermute, HasTheBitsOfTheCpu) {
  for (const at::ScalarType dtype : dtypes) {
    for (const int top_k : {1, 2, 3, 4, 6, 7, 8, 9}) {
      for (const int64_t tokens : {0, 1, 21}) {
        for (const int64_t width : widths) {
          const Case c = make_case(tokens, 16, top_k);
          const at::Tensor rows = random({tokens * top_k, width}, 5, dtype);
          const at::Tensor out = poisoned({tokens, width}, dtype);
          cuda::unpermute_out(out, std::vector<at::Tensor>{on_gpu(rows)}, on_gpu(c.plan.inverse),
                              on_gpu(c.routing.weights));
          EXPECT_TRUE(same(out, unpermute(rows, c.plan.inverse, c.routing.weights)))
              << top_k << " of " << tokens << " x " << width;
        }
      }
    }
  }
}

TEST_F(CudaUnpermute, SlotsWithoutARowAddNothing) {
  for (const at::ScalarType dtype : dtypes) {
    for (const int top_k : {1, 2, 5, 8, 32}) {
      const Case c = make_case(25, 40, top_k);
      const at::Tensor rows = random({25 * top_k, 136}, 5, dtype);
      rows[0].fill_(INFINITY);
      at::Tensor inverse = c.plan.inverse.clone();
      inverse.masked_fill_((at::arange(25 * top_k) % 3 == 1).logical_or(inverse == 0), -1);
      const std::vector<at::Tensor> chunks = {on_gpu(rows.narrow(0, 0, 7)),
                                              on_gpu(rows.narrow(0, 7, 25 * top_k - 7))};
      const at::Tensor out = poisoned({25, 136}, dtype);
      cuda::unpermute_out(out, chunks, on_gpu(inverse), on_gpu(c.routing.weights));
      EXPECT_TRUE(same(out, unpermute(rows, inverse, c.routing.weights))) << top_k;
    }
  }
}

TEST_F(CudaUnpermute, CutsChangeNoBit) {
  const Case c = make_case(40, 8, 3);
  const at::Tensor rows = random({120, 256}, 2, at::kBFloat16);
  const at::Tensor expected = unpermute(rows, c.plan.inverse, c.routing.weights);
  for (const int64_t cuts : {1, 2, 16, 30}) {
    std::vector<at::Tensor> chunks = {on_gpu(rows.narrow(0, 0, 0))};
    for (int64_t i = 0; i < cuts; ++i) {
      const int64_t first = 120 * i / cuts, last = 120 * (i + 1) / cuts;
      chunks.push_back(on_gpu(rows.narrow(0, first, last - first)));
    }
    const at::Tensor out = poisoned({40, 256}, at::kBFloat16);
    cuda::unpermute_out(out, chunks, on_gpu(c.plan.inverse), on_gpu(c.routing.weights));
    EXPECT_TRUE(same(out, expected)) << cuts;
  }
}

TEST_F(CudaUnpermute, RowsAreIndependent) {
  const Case c = make_case(3000, 64, 6);
  const at::Tensor rows = on_gpu(random({18000, 2048}, 2, at::kBFloat16));
  const at::Tensor inverse = on_gpu(c.plan.inverse), weights = on_gpu(c.routing.weights);
  const at::Tensor whole = poisoned({3000, 2048}, at::kBFloat16);
  cuda::unpermute_out(whole, std::span(&rows, 1), inverse, weights);
  for (const int64_t token : {0, 1500, 2999}) {
    const at::Tensor one = poisoned({1, 2048}, at::kBFloat16);
    cuda::unpermute_out(one, std::span(&rows, 1), inverse.narrow(0, token * 6, 6),
                        weights.narrow(0, token, 1));
    EXPECT_TRUE(at::equal(one, whole.narrow(0, token, 1)));
  }
}

TEST_F(CudaUnpermute, RefusesWhatDoesNotFit) {
  const at::Tensor rows = at::ones({4, 8}, at::kCUDA), out = at::ones({2, 8}, at::kCUDA);
  const at::Tensor inverse = at::arange(4, at::TensorOptions(at::kCUDA).dtype(at::kLong));
  const at::Tensor weights = at::ones({2, 2}, at::kCUDA);
  const std::vector<at::Tensor> chunks = {rows}, none, narrow = {rows.narrow(1, 0, 7)};
  EXPECT_THROW(cuda::unpermute_out(out, none, inverse, weights), Error);
  EXPECT_THROW(cuda::unpermute_out(out, narrow, inverse, weights), Error);
  EXPECT_THROW(cuda::unpermute_out(out, chunks, inverse.narrow(0, 0, 3), weights), Error);
  EXPECT_THROW(cuda::unpermute_out(out, chunks, inverse, weights.to(at::kDouble)), Error);
  EXPECT_THROW(cuda::unpermute_out(out.narrow(0, 0, 1), chunks, inverse, weights), Error);
}

}  // namespace
}  // namespace farskip::testing
