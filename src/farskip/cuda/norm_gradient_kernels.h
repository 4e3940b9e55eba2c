#pragma once

#include "farskip/cuda/launch.h"

namespace farskip::cuda {

// Where rows of a tensor lie: `outer` elements from one outer index to the next, `head` from one
// head to the next.
struct RowStrides {
  int64_t outer, head;
};

struct NormGradientArguments {
  void* out;  // by x; null for the gradient by the weight
  const void *d_y, *x;
  const void* weight;  // null for the gradient by the weight
  RowStrides out_strides, d_y_strides, x_strides;
  int64_t rows, heads, width;
  float eps;
};

void launch_rms_norm_gradient(Element element, const NormGradientArguments& arguments,
                              cudaStream_t stream);

// Partial sums that launch_rms_norm_weight_gradient makes first, each over a part of the rows.
int64_t weight_gradient_parts(Element element, int64_t rows, int64_t width);

// sums fp32 [width]; `parts` fp32 [weight_gradient_parts, width] is scratch.
void launch_rms_norm_weight_gradient(Element element, const NormGradientArguments& arguments,
                                     float* sums, float* parts, cudaStream_t stream);

}  // namespace farskip::cuda
