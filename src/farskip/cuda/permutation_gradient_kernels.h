#pragma once

#include "farskip/cuda/launch.h"

namespace farskip::cuda {

// A negative row of `inverse`: none.
struct UnpermuteGradientArguments {
  void* rows;         // [n, width]
  const void* d_out;  // [tokens, width]
  const int64_t* inverse;
  const float* weights;
  int64_t row_stride, d_out_stride;  // in elements
  int64_t tokens;
  int width, top_k;
};

void launch_unpermute_gradient(Element element, const UnpermuteGradientArguments& arguments,
                               cudaStream_t stream);

struct RoutingWeightsGradientArguments {
  float* out;  // [tokens, top_k]
  const void *d_out, *rows;
  const int64_t* inverse;
  int64_t d_out_stride, row_stride;  // in elements
  int64_t tokens;
  int width, top_k;
};

void launch_routing_weights_gradient(Element element,
                                     const RoutingWeightsGradientArguments& arguments,
                                     cudaStream_t stream);

}  // namespace farskip::cuda
