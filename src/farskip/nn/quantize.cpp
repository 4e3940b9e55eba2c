#include "farskip/nn/quantize.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/arange.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "farskip/cuda/permutation.h"
#include "farskip/model/packet.h"
#include "farskip/nn/check.h"
#include "farskip/nn/gpu.h"
#include "farskip/nn/tensor_ops.h"

namespace farskip {
namespace {

static_assert(PacketLayout::block == cuda::quantization_block);

void require_quantized(const at::Tensor& values, const at::Tensor& scales, const at::Tensor& x) {
  require_shape(x, {-1, -1}, "FP8 rows");
  require_dense_rows(x, "FP8 rows");
  require_shape(values, x.sizes(), "FP8 values");
  require_dtype(values, at::kFloat8_e4m3fn, "FP8 values");
  require_dense_rows(values, "FP8 values");
  require_shape(scales, {x.size(0), PacketLayout{.width = x.size(1), .scaled = true}.blocks()},
                "FP8 scales");
  require_dtype(scales, at::kFloat, "FP8 scales");
  require_dense_rows(scales, "FP8 scales");
}

// Every e4m3 number.
std::array<float, 256> all_numbers() {
  std::array<float, 256> numbers;
  for (int bits = 0; bits < 256; ++bits) {
    numbers[bits] = c10::Float8_e4m3fn(static_cast<uint8_t>(bits), c10::Float8_e4m3fn::from_bits());
  }
  return numbers;
}

template <typename scalar_t>
void dequantize_rows(const at::Tensor& out, const at::Tensor& values, const at::Tensor& scales) {
  static const std::array<float, 256> numbers = all_numbers();
  const int64_t width = out.size(1);
  for (int64_t row = 0; row < out.size(0); ++row) {
    scalar_t* to = out.mutable_data_ptr<scalar_t>() + row * out.stride(0);
    const auto* from =
        static_cast<const uint8_t*>(values.const_data_ptr()) + row * values.stride(0);
    const float* scale = scales.const_data_ptr<float>() + row * scales.stride(0);
    for (int64_t first = 0; first < width; first += PacketLayout::block, ++scale) {
      const int64_t last = std::min(width, first + PacketLayout::block);
      for (int64_t i = first; i < last; ++i)
        to[i] = static_cast<scalar_t>(numbers[from[i]] * *scale);
    }
  }
}

bool fit_kernel(const at::Tensor& values) {
  return values.size(1) % cuda::quantization_block == 0 && values.stride(0) % 16 == 0 &&
         reinterpret_cast<uintptr_t>(values.const_data_ptr()) % 16 == 0;
}

}  // namespace

void quantize_out(const at::Tensor& values, const at::Tensor& scales, const at::Tensor& x) {
  require_quantized(values, scales, x);
  if (!has_gpu_kernels(x) || !fit_kernel(values)) {
    return tensor_ops::quantize_out(values, scales, x);
  }
  const at::Tensor own_row = at::arange(x.size(0), x.options().dtype(at::kLong));
  cuda::permute_quantized_out(values, scales, x, own_row, 1);
}

void dequantize_out(const at::Tensor& out, const at::Tensor& values, const at::Tensor& scales) {
  require_quantized(values, scales, out);
  if (has_gpu_kernels(out) && fit_kernel(values)) {
    return cuda::dequantize_out(out, values, scales);
  }
  if (!out.is_cpu()) return tensor_ops::dequantize_out(out, values, scales);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, out.scalar_type(), "dequantize",
                                  [&] { dequantize_rows<scalar_t>(out, values, scales); });
}

}  // namespace farskip
