#pragma once

#include <ATen/core/Tensor.h>

#include "farskip/model/config.h"

namespace farskip {

// The gradient by a router's logits, fp32 [T, experts], from the gradient by the routing weights,
// fp32 [T, k]. The choice of experts has none, and neither has a correction bias. `logits` and
// `experts` as choose_experts read and made them. With s the scores (softmax or sigmoid of the
// logits, or softmax over the chosen ones), weights are scale s / (sum of chosen s + epsilon) where
// they are normalised, else scale s. Throws Error if shapes or dtypes do not fit.
at::Tensor routing_weights_to_logits_gradient(const RouterConfig& config,
                                              const at::Tensor& d_weights,
                                              const at::Tensor& experts, const at::Tensor& logits);

// The gradient by the router's input x [T, H] from that by the logits: d_logits weight, in `dtype`.
// Computed in fp32 if the config says so, else in the dtype of the weight [experts, H].
at::Tensor router_input_gradient(const RouterConfig& config, const at::Tensor& d_logits,
                                 const at::Tensor& weight, at::ScalarType dtype);

}  // namespace farskip
