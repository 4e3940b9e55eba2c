#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "farskip/io/safetensors.h"

namespace farskip {

// The sum of the squares of all elements of `shards` (fp32, bf16 or fp64, contiguous, any device;
// undefined or empty ones count nothing), in double precision: it overflows for no finite fp32
// values, so it is finite exactly if they all are. Added in a fixed order, so that the bits depend
// on the shards and their order alone, not on threads; on devices other than the CPU in the order
// of that device's own reduction. Waits for devices. Throws Error for another dtype.
double sum_of_squares(std::span<const at::Tensor> shards);

// A sum of squares, fp64 [1], rounded to fp32: what it is takes no heed of the order in which ranks
// and stages were summed, but for sums that lie just between two such numbers.
double rounded_squares(const at::Tensor& squares);

// What gradients are multiplied with so that their norm is at most max_norm: max_norm / norm if
// that is below 1, else 1. `squares` is the sum over all shards of all ranks. 1 for max_norm 0,
// which means no clipping. Throws ConfigError for a max_norm that is negative or no number.
double clip_factor(double squares, double max_norm);

// A tensor with values that are not finite.
struct NonFinite {
  std::string name;
  int64_t nans = 0, infinities = 0;
  int64_t first = 0;  // index of the first such element, flat

  // "layer.2.router: 3 NaN and 1 infinite of its values, the first at 17"
  std::string describe() const;
};

// Those of the tensors that have any, in their order. Meant for when the sum of squares is not
// finite; costs several passes. Waits for devices.
std::vector<NonFinite> find_non_finite(std::span<const NamedTensor> tensors);

}  // namespace farskip
