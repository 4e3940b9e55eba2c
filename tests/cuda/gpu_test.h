#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cmath>

#include "../gpu.h"
#include "../nn/random_tensors.h"

namespace farskip::testing {

inline at::Tensor on_gpu(const at::Tensor& x) { return x.to(at::kCUDA); }

// A GPU tensor full of NaN (integers: of a large number), so that what a kernel leaves unwritten
// shows.
inline at::Tensor poisoned(at::IntArrayRef shape, at::ScalarType dtype) {
  const at::Tensor tensor = at::empty(shape, at::TensorOptions(at::kCUDA).dtype(dtype));
  const bool real = at::isFloatingType(dtype) && dtype != at::kFloat8_e4m3fn;
  return real ? tensor.fill_(NAN) : tensor.view(at::kByte).fill_(0x7b).view(dtype);
}

// Largest |found - expected| / (|expected| + floor) of any element: 2^-8 is one step of bf16.
inline double elementwise_error(const at::Tensor& found, const at::Tensor& expected,
                                double floor = 1e-3) {
  EXPECT_EQ(found.sizes(), expected.sizes());
  if (expected.numel() == 0) return 0.0;
  const at::Tensor wide = expected.to(at::kDouble);
  return ((found.cpu().to(at::kDouble) - wide).abs() / (wide.abs() + floor)).max().item<double>();
}

// What a kernel may differ by from the CPU: in bf16 where a value falls to the other side of a
// rounding, which may happen twice.
inline double tolerance(at::ScalarType dtype) { return dtype == at::kFloat ? 2e-6 : 1.0 / 64; }

inline bool same(const at::Tensor& found, const at::Tensor& expected) {
  return at::equal(found.cpu(), expected);
}

}  // namespace farskip::testing
