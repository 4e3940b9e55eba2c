#include "farskip/nn/quantize.h"

#include <ATen/ops/arange.h>

#include <cstdint>

#include "farskip/cuda/permutation.h"
#include "farskip/model/packet.h"
#include "farskip/nn/check.h"
#include "farskip/nn/gpu.h"
#include "farskip/nn/tensor_ops.h"

namespace farskip {
namespace {

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
  tensor_ops::dequantize_out(out, values, scales);
}

}  // namespace farskip
