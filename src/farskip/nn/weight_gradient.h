#pragma once

#include <ATen/core/Tensor.h>

namespace farskip {

// Where the gradient of a parameter is gathered: `tensor` has the parameter's shape, in fp32 or in
// the parameter's dtype. The next contribution is added to what it holds, or replaces it.
struct WeightGradient {
  at::Tensor tensor;
  bool add = false;

  // One contribution, of the parameter's shape and any dtype. Throws Error if shapes do not fit.
  void take(const at::Tensor& contribution) const;
  // The contribution a^T b of a matrix [out, in]: a [rows, out], b [rows, in] of one dtype; zero
  // rows contribute zeros. Throws Error if shapes do not fit.
  void take_product(const at::Tensor& a, const at::Tensor& b) const;
  // The part of dimension 0 from `first` on, `rows` long.
  WeightGradient narrow(int64_t first, int64_t rows) const {
    return {tensor.narrow(0, first, rows), add};
  }
};

}  // namespace farskip
