#pragma once

#include <algorithm>

#include "farskip/cuda/pack.cuh"

// How kernels that move rows share them out: a warp a row; where rows are few, several warps a row,
// each with a part of the columns.
namespace farskip::cuda {

inline constexpr int row_block_warps = 8;
inline constexpr int row_block_threads = row_block_warps * warp_size;

// Blocks for `rows` rows of `units` accesses, at least `least_units` of them for a warp.
inline dim3 row_grid(int64_t rows, int64_t units, int64_t least_units) {
  const int64_t wanted_warps = int64_t{multiprocessors()} * 32;
  const int64_t parts = std::clamp<int64_t>(wanted_warps / std::max<int64_t>(rows, 1), 1,
                                            divide_up(units, least_units));
  return dim3(static_cast<unsigned>(divide_up(rows, row_block_warps)),
              static_cast<unsigned>(parts));
}

struct RowPart {
  int64_t row;
  int begin, end;  // units
};

// The calling warp's part; whole warps get rows beyond the last.
__device__ __forceinline__ RowPart row_part(int units) {
  const int length = (units + static_cast<int>(gridDim.y) - 1) / static_cast<int>(gridDim.y);
  const int begin = static_cast<int>(blockIdx.y) * length;
  return {int64_t{blockIdx.x} * row_block_warps + threadIdx.x / warp_size, begin,
          min(units, begin + length)};
}

}  // namespace farskip::cuda
