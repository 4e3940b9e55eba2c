#pragma once

#include "farskip/cuda/launch.h"

namespace farskip::cuda {

// Tensors that rows may come in; more are joined first.
inline constexpr int max_chunks = 16;

// Where rows go. Gather: row i of the output is token slots[i] / top_k. Otherwise slots[t * top_k +
// j] is a row of token t, and those in [first_row, first_row + rows) are written.
struct PermuteArguments {
  void* out;       // [rows, width]
  float* scales;   // [rows, width / 128], for quantising only
  const void* in;  // [tokens, width]
  const int64_t* slots;
  int64_t out_stride, scale_stride, in_stride;  // in elements
  int64_t tokens, rows, first_row;
  int width, top_k;
};

void launch_permute(Element in, Element out, bool gather, const PermuteArguments& arguments,
                    cudaStream_t stream);
void launch_permute_quantized(Element in, const PermuteArguments& arguments, cudaStream_t stream);

struct DequantizeArguments {
  void* out;                                       // [rows, width]
  const void* values;                              // [rows, width], e4m3
  const float* scales;                             // [rows, width / 128]
  int64_t out_stride, value_stride, scale_stride;  // in elements
  int64_t rows;
  int width;
};

void launch_dequantize(Element out, const DequantizeArguments& arguments, cudaStream_t stream);

// Rows in several tensors, one after the other.
struct RowChunks {
  const void* base[max_chunks];
  int64_t stride[max_chunks];     // in elements
  int64_t first[max_chunks + 1];  // row
  int count;
};

// A negative row of `inverse`: none, which adds nothing.
struct UnpermuteArguments {
  void* out;
  RowChunks rows;
  const int64_t* inverse;
  const float* weights;
  int64_t tokens;
  int width, top_k;
};

void launch_unpermute(Element element, const UnpermuteArguments& arguments, cudaStream_t stream);

}  // namespace farskip::cuda
