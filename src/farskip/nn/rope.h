#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "farskip/model/config.h"

namespace farskip {

// The rotation that each pair of dimensions makes per position, and what yarn multiplies cos and
// sin by (1 without yarn).
struct RopeFrequencies {
  std::vector<float> radians;  // [dims / 2], per position
  float magnitude = 1.0f;
};

// Frequencies theta^(-2i / dims), scaled as the config says: linear and llama3 (wavelengths beyond
// the original context are stretched by `factor`, with a smooth passage), yarn (arXiv 2309.00071,
// with DeepSeek's mscale ratio as the magnitude). Throws ConfigError if dims is odd or not
// positive, or if a scaling lacks what it needs.
RopeFrequencies rope_frequencies(const RopeConfig& config);

// cos and sin of every position's angles, both fp32 [T, dims / 2].
struct RopeTable {
  at::Tensor cos, sin;
};

// The table for tokens at `positions` (int64 [T]). The angle is an fp32 product of position
// and frequency, as the published models were trained with. Throws ConfigError like
// rope_frequencies, Error if positions has another shape or dtype.
RopeTable rope_cos_sin(const RopeConfig& config, const at::Tensor& positions);

// Positions of flat tokens, each sequence from 0: int64 [sum of lengths]. Throws Error if a length
// is negative.
at::Tensor sequence_positions(const std::vector<int64_t>& lengths);

// Rotates, in place, the first 2 * cos.size(1) dimensions of x [T, heads, d]. Interleaved rotates
// the pairs (x_2i, x_2i+1) and leaves them where they are; otherwise (x_i, x_i+dims/2). Computed in
// fp32, rounded once. The last dimension of x must be dense. Throws Error if shapes do not fit.
void apply_rope_(const at::Tensor& x, const RopeTable& table, bool interleaved);

}  // namespace farskip
