#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace farskip {

// The tokens of the most loaded expert over the mean of all experts, of each router: 1 where loads
// are even, experts / k where all tokens choose the same k. `loads`: int64 [routers, experts], on
// the CPU. 1 without tokens.
std::vector<double> max_over_mean_loads(const at::Tensor& loads);

// Moves a router's correction bias, which takes part in the choice of experts alone, towards even
// loads (DeepSeek-V3, arXiv 2412.19437 section 2.1.2, and 2408.15664):
//
//   bias(e) += speed x sign(mean of loads - loads(e))
//
// bias: fp32 [experts], any device, updated in place. loads: int64 [experts] of a whole step over
// all ranks, on the CPU, so that every rank makes the same bits. Throws Error for other shapes.
void update_correction_bias(const at::Tensor& bias, const at::Tensor& loads, double speed);

}  // namespace farskip
