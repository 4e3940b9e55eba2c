#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

#include <functional>

namespace farskip::testing {

// d f / d x by central differences; f reads x where it lies.
inline at::Tensor differences(const at::Tensor& x, double step, const std::function<double()>& f) {
  at::Tensor gradient = at::zeros(x.sizes(), at::kDouble);
  const at::Tensor flat = x.view({-1}), out = gradient.view({-1});
  for (int64_t i = 0; i < flat.size(0); ++i) {
    const at::Tensor element = flat[i];
    const double value = element.item<double>();
    at::Tensor(element).fill_(value + step);
    const double above = f();
    at::Tensor(element).fill_(value - step);
    const double below = f();
    at::Tensor(element).fill_(value);
    out[i].fill_((above - below) / (2 * step));
  }
  return gradient;
}

}  // namespace farskip::testing
