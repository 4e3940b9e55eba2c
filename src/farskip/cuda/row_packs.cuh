#pragma once

#include <algorithm>
#include <type_traits>

#include "farskip/cuda/pack.cuh"

// Rows that stay in the registers of a warp, or of a block, between reading and writing.
namespace farskip::cuda {

inline constexpr int most_row_threads = 256;

// This thread's packs of one row (or of a block's share): pack p begins at element
// `first + p * step`. Where packs are aligned, `end` cuts none.
template <typename T, int Packs, bool Aligned>
__device__ __forceinline__ void load_packs(Pack<T> (&packs)[Packs], const T* from, int first,
                                           int step, int end) {
#pragma unroll
  for (int p = 0; p < Packs; ++p) {
    const int at = first + p * step;
    packs[p] = Pack<T>{};
    if (at < end) packs[p] = load_pack<T, Aligned>(from + at, end - at);
  }
}

template <typename T, int Packs, bool Aligned>
__device__ __forceinline__ void store_packs(T* to, const Pack<T> (&packs)[Packs], int first,
                                            int step, int end) {
#pragma unroll
  for (int p = 0; p < Packs; ++p) {
    const int at = first + p * step;
    if (at < end) store_pack<T, Aligned>(to + at, packs[p], end - at);
  }
}

// A number for each warp of a block.
using WarpPartials = float[most_row_threads / warp_size];

// The sum over the threads of a row: a warp, or a whole block. `partial` alternates between two
// places from row to row, so that one barrier a row is enough.
__device__ __forceinline__ float row_sum(float value, WarpPartials& partial) {
  value = warp_sum(value);
  if (blockDim.x <= warp_size) return value;
  if (threadIdx.x % warp_size == 0) partial[threadIdx.x / warp_size] = value;
  __syncthreads();
  float sum = 0.0f;
  for (unsigned warp = 0; warp < blockDim.x / warp_size; ++warp) sum += partial[warp];
  return sum;
}

template <typename T, int Packs>
__device__ __forceinline__ float sum_of_squares(const Pack<T> (&packs)[Packs]) {
  float sum = 0.0f;
#pragma unroll
  for (int p = 0; p < Packs; ++p) {
    float values[pack_size<T>];
    unpack(packs[p], values);
#pragma unroll
    for (int i = 0; i < pack_size<T>; ++i) sum += values[i] * values[i];
  }
  return sum;
}

// What a row's norm multiplies it by, from the sum of its squares.
__device__ __forceinline__ float inverse_rms(float squares, int width, float eps) {
  return 1.0f / sqrtf(squares / static_cast<float>(width) + eps);
}

// Blocks for rows of `width` elements, `Packs` of 16 bytes a thread: blockDim.x threads a row; a
// block of one-warp rows has blockDim.y of them.
template <typename T, int Packs>
dim3 row_threads(int64_t width) {
  const int64_t packs = divide_up(divide_up(width, pack_size<T>), Packs);
  const auto threads = static_cast<unsigned>(divide_up(packs, warp_size) * warp_size);
  return dim3(threads, threads == warp_size ? most_row_threads / warp_size : 1);
}

// Blocks that go on from row to row, as many as `threads` resident threads a multiprocessor.
inline int64_t row_blocks(int64_t rows, dim3 block, int threads = 2048) {
  const int64_t resident =
      multiprocessors() * int64_t{threads / static_cast<int>(block.x * block.y)};
  return std::min(divide_up(rows, block.y), resident);
}

// Calls launch(std::integral_constant<int, Packs>()) with the packs a thread holds of a row of
// `width` elements. Narrow rows fit one warp, which needs no barrier.
template <typename T, typename Launch>
void with_packs(int64_t width, Launch launch) {
  const int64_t packs = divide_up(width, pack_size<T>);
  if (packs <= 32) return launch(std::integral_constant<int, 1>());
  if (packs <= 64 || (packs > 128 && packs <= 256)) {
    return launch(std::integral_constant<int, 2>());
  }
  if (packs <= 1024) return launch(std::integral_constant<int, 4>());
  launch(std::integral_constant<int, 8>());
}

}  // namespace farskip::cuda
