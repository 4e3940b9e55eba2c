#include "farskip/cuda/permutation_gradient_kernels.h"
#include "farskip/cuda/row_grid.cuh"

namespace farskip::cuda {
namespace {

constexpr int units_in_flight = 4;  // of a lane, all loaded before the first is stored
constexpr int rows_in_flight = 4;   // where the number of choices is not known

template <typename T>
__device__ __forceinline__ Pack<T> weighed(const Pack<T>& pack, float weight) {
  float values[pack_size<T>];
  unpack(pack, values);
#pragma unroll
  for (int i = 0; i < pack_size<T>; ++i) values[i] *= weight;
  Pack<T> result;
  repack(result, values);
  return result;
}

template <typename T>
__device__ __forceinline__ float dot(const Pack<T>& a, const Pack<T>& b) {
  float x[pack_size<T>], y[pack_size<T>], sum = 0.0f;
  unpack(a, x);
  unpack(b, y);
#pragma unroll
  for (int i = 0; i < pack_size<T>; ++i) sum += x[i] * y[i];
  return sum;
}

// A warp reads a token's row once and writes it, weighed, to all its places.
template <typename T, bool Aligned>
__global__ void __launch_bounds__(row_block_threads)
    unpermute_gradient_kernel(const __grid_constant__ UnpermuteGradientArguments a) {
  const int lane = threadIdx.x % warp_size;
  const RowPart part = row_part((a.width + pack_size<T> - 1) / pack_size<T>);
  if (part.row >= a.tokens) return;
  const int64_t slot = part.row * a.top_k + lane;
  const int64_t mine = lane < a.top_k ? a.inverse[slot] : -1;
  const float my_weight = lane < a.top_k ? a.weights[slot] : 0.0f;
  const T* const from = static_cast<const T*>(a.d_out) + part.row * a.d_out_stride;
  for (int base = part.begin + lane; base - lane < part.end; base += units_in_flight * warp_size) {
    Pack<T> packs[units_in_flight];
#pragma unroll
    for (int i = 0; i < units_in_flight; ++i) {
      const int column = (base + i * warp_size) * pack_size<T>;
      if (base + i * warp_size < part.end) {
        packs[i] = load_pack<T, Aligned>(from + column, a.width - column);
      }
    }
    for (int j = 0; j < a.top_k; ++j) {
      const int64_t row = __shfl_sync(full_warp, mine, j);
      const float weight = __shfl_sync(full_warp, my_weight, j);
      if (row < 0) continue;
      T* const to = static_cast<T*>(a.rows) + row * a.row_stride;
#pragma unroll
      for (int i = 0; i < units_in_flight; ++i) {
        const int column = (base + i * warp_size) * pack_size<T>;
        if (base + i * warp_size >= part.end) continue;
        store_pack<T, Aligned>(to + column, weighed<T>(packs[i], weight), a.width - column);
      }
    }
  }
}

// A warp a token, its row and `together` of its experts' rows in flight at once. Choices: how many;
// 0: any number.
template <typename T, int Choices, bool Aligned>
__global__ void __launch_bounds__(row_block_threads)
    routing_weights_gradient_kernel(const __grid_constant__ RoutingWeightsGradientArguments a) {
  constexpr int together = Choices > 0 ? Choices : rows_in_flight;
  const int lane = threadIdx.x % warp_size;
  const int choices = Choices > 0 ? Choices : a.top_k;
  const int64_t token = int64_t{blockIdx.x} * row_block_warps + threadIdx.x / warp_size;
  if (token >= a.tokens) return;
  const int64_t mine = lane < choices ? a.inverse[token * choices + lane] : -1;
  const T* const d_row = static_cast<const T*>(a.d_out) + token * a.d_out_stride;
  for (int first = 0; first < choices; first += together) {
    int64_t rows[together];
    float sums[together] = {};
#pragma unroll
    for (int j = 0; j < together; ++j) {
      rows[j] = first + j < choices ? __shfl_sync(full_warp, mine, first + j) : -1;
    }
    for (int column = lane * pack_size<T>; column < a.width; column += warp_size * pack_size<T>) {
      const int count = a.width - column;
      const Pack<T> d = load_pack<T, Aligned>(d_row + column, count);
      Pack<T> packs[together];
#pragma unroll
      for (int j = 0; j < together; ++j) {
        if (rows[j] < 0) continue;
        packs[j] = load_pack<T, Aligned>(
            static_cast<const T*>(a.rows) + rows[j] * a.row_stride + column, count);
      }
#pragma unroll
      for (int j = 0; j < together; ++j) {
        if (rows[j] >= 0) sums[j] += dot<T>(d, packs[j]);
      }
    }
#pragma unroll
    for (int j = 0; j < together; ++j) {
      const float sum = warp_sum(sums[j]);
      if (lane == 0 && first + j < choices) a.out[token * choices + first + j] = sum;
    }
  }
}

template <typename T>
void unpermute_gradient(const UnpermuteGradientArguments& a, cudaStream_t stream) {
  const bool aligned = (a.width | a.row_stride | a.d_out_stride) % pack_size<T> == 0 &&
                       is_aligned(a.rows) && is_aligned(a.d_out);
  const auto kernel =
      aligned ? unpermute_gradient_kernel<T, true> : unpermute_gradient_kernel<T, false>;
  const dim3 grid =
      row_grid(a.tokens, divide_up(a.width, pack_size<T>), units_in_flight * warp_size);
  kernel<<<grid, row_block_threads, 0, stream>>>(a);
}

template <typename T>
void routing_weights_gradient(const RoutingWeightsGradientArguments& a, cudaStream_t stream) {
  const bool aligned = (a.width | a.row_stride | a.d_out_stride) % pack_size<T> == 0 &&
                       is_aligned(a.rows) && is_aligned(a.d_out);
  const auto kernel = !aligned       ? routing_weights_gradient_kernel<T, 0, false>
                      : a.top_k == 1 ? routing_weights_gradient_kernel<T, 1, true>
                      : a.top_k == 2 ? routing_weights_gradient_kernel<T, 2, true>
                      : a.top_k == 4 ? routing_weights_gradient_kernel<T, 4, true>
                      : a.top_k == 6 ? routing_weights_gradient_kernel<T, 6, true>
                      : a.top_k == 8 ? routing_weights_gradient_kernel<T, 8, true>
                                     : routing_weights_gradient_kernel<T, 0, true>;
  const auto blocks = static_cast<unsigned>(divide_up(a.tokens, row_block_warps));
  kernel<<<blocks, row_block_threads, 0, stream>>>(a);
}

}  // namespace

void launch_unpermute_gradient(Element element, const UnpermuteGradientArguments& arguments,
                               cudaStream_t stream) {
  if (element == Element::f32) {
    unpermute_gradient<float>(arguments, stream);
  } else {
    unpermute_gradient<__nv_bfloat16>(arguments, stream);
  }
  check_launch("unpermute_gradient");
}

void launch_routing_weights_gradient(Element element,
                                     const RoutingWeightsGradientArguments& arguments,
                                     cudaStream_t stream) {
  if (element == Element::f32) {
    routing_weights_gradient<float>(arguments, stream);
  } else {
    routing_weights_gradient<__nv_bfloat16>(arguments, stream);
  }
  check_launch("routing_weights_gradient");
}

}  // namespace farskip::cuda
