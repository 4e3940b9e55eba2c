#pragma once

#include "farskip/cuda/launch.h"

namespace farskip::cuda {

// Terms that one launch sums; longer sums go through their output.
inline constexpr int max_terms = 8;

struct Terms {
  const void* address[max_terms];
  int count;
};

// out[i] = the sum of terms[..][i], for `count` elements.
void launch_sum(Element element, void* out, const Terms& terms, int64_t count, cudaStream_t stream);

// Rows of `width` elements, `heads` of them for each outer index. Strides are in elements. With
// more than one term, or with a sum to store, all are contiguous.
struct RmsNormArguments {
  Terms terms;
  void* sum;  // null: not stored
  void* normed;
  const void* weight;
  int64_t rows, heads, width;
  int64_t in_stride, in_head_stride, out_stride, out_head_stride;
  float eps;
};

// Packs of 16 bytes that a row may have.
inline constexpr int64_t max_row_packs = 2048;

void launch_rms_norm(Element element, const RmsNormArguments& arguments, cudaStream_t stream);

}  // namespace farskip::cuda
