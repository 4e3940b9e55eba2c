#pragma once

#include <ATen/core/Tensor.h>

// Rows in FP8 (e4m3), every block of 128 values with a scale of its own.
namespace farskip {

// A block's scale is max(largest |x| of it, 1e-30) / 448, its values x / scale rounded to e4m3. x
// [T, H], values Float8_e4m3fn [T, H], scales fp32 [T, ceil(H / 128)]; rows of all three may lie
// apart. On a GPU a kernel each where H is a multiple of 128 and rows of values are aligned to 16
// bytes. Throws Error if shapes or dtypes do not fit.
void quantize_out(const at::Tensor& values, const at::Tensor& scales, const at::Tensor& x);

// out = values * scale in fp32, rounded to out's dtype: out [T, H], values and scales as
// quantize_out makes them. The error of a value is at most 1/16 of it, or 2^-10 of its scale where
// that is more, before the rounding of out. Throws Error if shapes or dtypes do not fit.
void dequantize_out(const at::Tensor& out, const at::Tensor& values, const at::Tensor& scales);

}  // namespace farskip
