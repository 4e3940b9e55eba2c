#include "farskip/cuda/permutation_kernels.h"
#include "farskip/cuda/row_grid.cuh"

namespace farskip::cuda {
namespace {

constexpr int loads_in_flight = 4;  // of a lane, where the number of rows is not known

// Bytes from the first chunk's base to a row that may lie in any of the chunks.
template <typename T>
__device__ __forceinline__ int64_t offset_of(const RowChunks& rows, int64_t row) {
  int chunk = 0;
  while (chunk + 1 < rows.count && row >= rows.first[chunk + 1]) ++chunk;
  const T* const address =
      static_cast<const T*>(rows.base[chunk]) + (row - rows.first[chunk]) * rows.stride[chunk];
  return reinterpret_cast<const char*>(address) - static_cast<const char*>(rows.base[0]);
}

// What lane `lane` has the offset of. A pointer that went through the lanes itself would no longer
// be known to be one to global memory, and be loaded from by slower instructions.
template <typename T>
__device__ __forceinline__ const T* row_of_lane(const RowChunks& rows, int64_t offset, int lane) {
  return reinterpret_cast<const T*>(static_cast<const char*>(rows.base[0]) +
                                    __shfl_sync(full_warp, offset, lane));
}

// sum += weight * pack, not contracted: the CPU rounds the product too.
template <typename T>
__device__ __forceinline__ void add_weighted(float (&sum)[pack_size<T>], float weight,
                                             const Pack<T>& pack) {
  float values[pack_size<T>];
  unpack(pack, values);
#pragma unroll
  for (int i = 0; i < pack_size<T>; ++i) sum[i] = __fadd_rn(sum[i], __fmul_rn(weight, values[i]));
}

// A warp brings a token's rows home, all of them in flight. Choices: how many; 0: any number.
template <typename T, int Choices, bool Aligned>
__global__ void __launch_bounds__(row_block_threads)
    unpermute_kernel(const __grid_constant__ UnpermuteArguments a) {
  constexpr int together = Choices > 0 ? Choices : loads_in_flight;
  const int lane = threadIdx.x % warp_size;
  const int choices = Choices > 0 ? Choices : a.top_k;
  const RowPart part = row_part((a.width + pack_size<T> - 1) / pack_size<T>);
  if (part.row >= a.tokens) return;
  int64_t mine = 0;
  float my_weight = 0.0f;
  bool has_row = false;
  if (lane < choices) {
    const int64_t row = a.inverse[part.row * choices + lane];
    has_row = row >= 0;
    if (has_row) mine = offset_of<T>(a.rows, row);
    my_weight = a.weights[part.row * choices + lane];
  }
  const unsigned rows = __ballot_sync(full_warp, has_row);
  T* const to = static_cast<T*>(a.out) + part.row * a.width;
  for (int base = part.begin; base < part.end; base += warp_size) {
    const int column = (base + lane) * pack_size<T>;
    const int count = base + lane < part.end ? a.width - column : 0;
    float sum[pack_size<T>] = {};
    for (int first = 0; first < choices; first += together) {
      Pack<T> packs[together];
#pragma unroll
      for (int j = 0; j < together; ++j) {
        const T* const from = row_of_lane<T>(a.rows, mine, first + j);
        if (rows >> (first + j) & 1 && count > 0)
          packs[j] = load_pack<T, Aligned>(from + column, count);
      }
#pragma unroll
      for (int j = 0; j < together; ++j) {
        const float weight = __shfl_sync(full_warp, my_weight, first + j);
        if (rows >> (first + j) & 1) add_weighted<T>(sum, weight, packs[j]);
      }
    }
    Pack<T> result;
    repack(result, sum);
    if (count > 0) store_pack<T, Aligned>(to + column, result, count);
  }
}

template <typename T>
bool rows_aligned(const RowChunks& rows) {
  for (int i = 0; i < rows.count; ++i) {
    if (!is_aligned(rows.base[i]) || rows.stride[i] % pack_size<T> != 0) return false;
  }
  return true;
}

template <typename T>
void unpermute(const UnpermuteArguments& a, cudaStream_t stream) {
  const bool aligned = a.width % pack_size<T> == 0 && is_aligned(a.out) && rows_aligned<T>(a.rows);
  const auto kernel = !aligned       ? unpermute_kernel<T, 0, false>
                      : a.top_k == 1 ? unpermute_kernel<T, 1, true>
                      : a.top_k == 2 ? unpermute_kernel<T, 2, true>
                      : a.top_k == 4 ? unpermute_kernel<T, 4, true>
                      : a.top_k == 6 ? unpermute_kernel<T, 6, true>
                      : a.top_k == 8 ? unpermute_kernel<T, 8, true>
                                     : unpermute_kernel<T, 0, true>;
  const dim3 grid = row_grid(a.tokens, divide_up(a.width, pack_size<T>), warp_size);
  kernel<<<grid, row_block_threads, 0, stream>>>(a);
}

}  // namespace

void launch_unpermute(Element element, const UnpermuteArguments& arguments, cudaStream_t stream) {
  if (element == Element::f32) {
    unpermute<float>(arguments, stream);
  } else {
    unpermute<__nv_bfloat16>(arguments, stream);
  }
  check_launch("unpermute");
}

}  // namespace farskip::cuda
