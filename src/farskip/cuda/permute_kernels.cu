#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <algorithm>

#include "farskip/cuda/permutation_kernels.h"
#include "farskip/cuda/row_grid.cuh"

namespace farskip::cuda {
namespace {

constexpr int units_in_flight = 4;  // of a lane, all loaded before the first is stored
constexpr int block_elements = 128;
constexpr int lane_elements = 16;  // of a lane at a time, quantising: one access of FP8

constexpr int larger(int a, int b) { return a > b ? a : b; }

// The least number of elements that is whole accesses on both sides.
template <typename In, typename Out>
inline constexpr int unit_size = larger(pack_size<In>, pack_size<Out>);

template <typename T, int Size>
struct Unit {
  Pack<T> packs[Size / pack_size<T>];
};

template <typename T, int Size, bool Aligned>
__device__ __forceinline__ Unit<T, Size> load_unit(const T* from, int count) {
  Unit<T, Size> unit;
#pragma unroll
  for (int p = 0; p < Size / pack_size<T>; ++p) {
    unit.packs[p] = load_pack<T, Aligned>(from + p * pack_size<T>, count - p * pack_size<T>);
  }
  return unit;
}

template <typename T, int Size, bool Aligned>
__device__ __forceinline__ void store_unit(T* to, const Unit<T, Size>& unit, int count) {
#pragma unroll
  for (int p = 0; p < Size / pack_size<T>; ++p) {
    store_pack<T, Aligned>(to + p * pack_size<T>, unit.packs[p], count - p * pack_size<T>);
  }
}

template <typename T, int Size>
__device__ __forceinline__ void unpack_unit(const Unit<T, Size>& unit, float (&values)[Size]) {
#pragma unroll
  for (int p = 0; p < Size / pack_size<T>; ++p) {
    float part[pack_size<T>];
    unpack(unit.packs[p], part);
#pragma unroll
    for (int i = 0; i < pack_size<T>; ++i) values[p * pack_size<T> + i] = part[i];
  }
}

template <typename T, int Size>
__device__ __forceinline__ void repack_unit(Unit<T, Size>& unit, const float (&values)[Size]) {
#pragma unroll
  for (int p = 0; p < Size / pack_size<T>; ++p) {
    float part[pack_size<T>];
#pragma unroll
    for (int i = 0; i < pack_size<T>; ++i) part[i] = values[p * pack_size<T> + i];
    repack(unit.packs[p], part);
  }
}

// Bits stay as they are where the dtype does.
template <int Size, typename T>
__device__ __forceinline__ void convert(Unit<T, Size>& to, const Unit<T, Size>& from) {
  to = from;
}
template <int Size, typename In, typename Out>
__device__ __forceinline__ void convert(Unit<Out, Size>& to, const Unit<In, Size>& from) {
  float values[Size];
  unpack_unit(from, values);
  repack_unit(to, values);
}

// The row of `out` that lane j holds for its choice j of the token, or -1: not in this window.
__device__ __forceinline__ int64_t destination(const PermuteArguments& a, int64_t token) {
  const int lane = threadIdx.x % warp_size;
  if (lane >= a.top_k) return -1;
  const int64_t row = a.slots[token * a.top_k + lane] - a.first_row;
  return row < a.rows ? row : -1;
}

// A warp reads a row once and writes it to all its places.
template <typename In, typename Out, bool Gather, bool Aligned>
__global__ void __launch_bounds__(row_block_threads)
    permute_kernel(const __grid_constant__ PermuteArguments a) {
  constexpr int size = unit_size<In, Out>;
  const int lane = threadIdx.x % warp_size;
  const RowPart part = row_part((a.width + size - 1) / size);
  if (part.row >= (Gather ? a.rows : a.tokens)) return;
  const int64_t slot = Gather ? a.slots[part.row] : 0;
  if (slot < 0) return;
  const int64_t token = Gather ? slot / a.top_k : part.row;
  const int64_t mine = Gather ? part.row : destination(a, token);
  if (!Gather && !__any_sync(full_warp, mine >= 0)) return;
  const int places = Gather ? 1 : a.top_k;
  const In* const from = static_cast<const In*>(a.in) + token * a.in_stride;
  for (int base = part.begin; base < part.end; base += units_in_flight * warp_size) {
    Unit<Out, size> units[units_in_flight];
    Unit<In, size> loaded[units_in_flight];
#pragma unroll
    for (int i = 0; i < units_in_flight; ++i) {
      const int unit = base + i * warp_size + lane;
      if (unit < part.end) {
        loaded[i] = load_unit<In, size, Aligned>(from + unit * size, a.width - unit * size);
      }
    }
#pragma unroll
    for (int i = 0; i < units_in_flight; ++i) convert<size>(units[i], loaded[i]);
    for (int j = 0; j < places; ++j) {
      const int64_t row = Gather ? mine : __shfl_sync(full_warp, mine, j);
      if (row < 0) continue;
      Out* const to = static_cast<Out*>(a.out) + row * a.out_stride;
#pragma unroll
      for (int i = 0; i < units_in_flight; ++i) {
        const int unit = base + i * warp_size + lane;
        if (unit >= part.end) continue;
        store_unit<Out, size, Aligned>(to + unit * size, units[i], a.width - unit * size);
      }
    }
  }
}

__device__ __forceinline__ uint4 to_fp8(const float (&values)[lane_elements], float factor) {
  uint32_t words[4];
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    const float2 low{values[4 * w] * factor, values[4 * w + 1] * factor};
    const float2 high{values[4 * w + 2] * factor, values[4 * w + 3] * factor};
    words[w] = uint32_t{__nv_cvt_float2_to_fp8x2(low, __NV_SATFINITE, __NV_E4M3)} |
               uint32_t{__nv_cvt_float2_to_fp8x2(high, __NV_SATFINITE, __NV_E4M3)} << 16;
  }
  return {words[0], words[1], words[2], words[3]};
}

// Eight lanes share a block of 128 elements and its scale.
template <typename In, bool Aligned>
__global__ void __launch_bounds__(row_block_threads)
    permute_quantized_kernel(const __grid_constant__ PermuteArguments a) {
  constexpr float largest = 448.0f, least = 1e-30f;
  constexpr int lanes = block_elements / lane_elements;
  const int lane = threadIdx.x % warp_size;
  const int blocks = a.width / block_elements;
  const RowPart part = row_part(blocks);
  if (part.row >= a.tokens) return;
  const int64_t mine = destination(a, part.row);
  const In* const from = static_cast<const In*>(a.in) + part.row * a.in_stride;
#pragma unroll 2
  for (int base = part.begin; base < part.end; base += warp_size / lanes) {
    const int block = base + lane / lanes;
    const int column = block * block_elements + lane % lanes * lane_elements;
    const bool active = block < part.end;
    float values[lane_elements] = {};
    if (active) {
      unpack_unit(load_unit<In, lane_elements, Aligned>(from + column, lane_elements), values);
    }
    float most = least;
#pragma unroll
    for (int i = 0; i < lane_elements; ++i) most = fmaxf(most, fabsf(values[i]));
#pragma unroll
    for (int mask = lanes / 2; mask > 0; mask /= 2) {
      most = fmaxf(most, __shfl_xor_sync(full_warp, most, mask));
    }
    const uint4 packed = to_fp8(values, largest / most);
    for (int j = 0; j < a.top_k; ++j) {
      const int64_t row = __shfl_sync(full_warp, mine, j);
      if (row < 0 || !active) continue;
      *reinterpret_cast<uint4*>(static_cast<uint8_t*>(a.out) + row * a.out_stride + column) =
          packed;
      if (lane % lanes == 0) a.scales[row * a.scale_stride + block] = most / largest;
    }
  }
}

__device__ __forceinline__ void from_fp8(const uint4& packed, float scale,
                                         float (&values)[lane_elements]) {
  const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int pair = 0; pair < lane_elements / 2; ++pair) {
    const auto bits = static_cast<__nv_fp8x2_storage_t>(words[pair / 2] >> (pair % 2 * 16));
    const float2 both = __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(bits, __NV_E4M3)));
    values[2 * pair] = both.x * scale;
    values[2 * pair + 1] = both.y * scale;
  }
}

template <typename Out, bool Aligned>
__global__ void __launch_bounds__(row_block_threads)
    dequantize_kernel(const __grid_constant__ DequantizeArguments a) {
  const RowPart part = row_part(a.width / lane_elements);
  if (part.row >= a.rows) return;
  const uint8_t* const from = static_cast<const uint8_t*>(a.values) + part.row * a.value_stride;
  const float* const scales = a.scales + part.row * a.scale_stride;
  Out* const to = static_cast<Out*>(a.out) + part.row * a.out_stride;
#pragma unroll 2
  for (int unit = part.begin + threadIdx.x % warp_size; unit < part.end; unit += warp_size) {
    const int column = unit * lane_elements;
    float values[lane_elements];
    from_fp8(*reinterpret_cast<const uint4*>(from + column), scales[column / block_elements],
             values);
    Unit<Out, lane_elements> result;
    repack_unit(result, values);
    store_unit<Out, lane_elements, Aligned>(to + column, result, lane_elements);
  }
}

template <typename In, typename Out>
void permute(bool gather, const PermuteArguments& a, cudaStream_t stream) {
  constexpr int size = unit_size<In, Out>;
  const bool aligned = a.width % size == 0 && a.in_stride % pack_size<In> == 0 &&
                       a.out_stride % pack_size<Out> == 0 && is_aligned(a.in) && is_aligned(a.out);
  const auto kernel =
      gather
          ? (aligned ? permute_kernel<In, Out, true, true> : permute_kernel<In, Out, true, false>)
          : (aligned ? permute_kernel<In, Out, false, true>
                     : permute_kernel<In, Out, false, false>);
  const dim3 grid =
      row_grid(gather ? a.rows : a.tokens, divide_up(a.width, size), units_in_flight * warp_size);
  kernel<<<grid, row_block_threads, 0, stream>>>(a);
}

template <typename In>
void permute(Element out, bool gather, const PermuteArguments& a, cudaStream_t stream) {
  if (out == Element::f32) return permute<In, float>(gather, a, stream);
  permute<In, __nv_bfloat16>(gather, a, stream);
}

template <typename In>
void permute_quantized(const PermuteArguments& a, cudaStream_t stream) {
  const bool aligned = a.in_stride % pack_size<In> == 0 && is_aligned(a.in);
  const auto kernel =
      aligned ? permute_quantized_kernel<In, true> : permute_quantized_kernel<In, false>;
  const dim3 grid = row_grid(a.tokens, a.width / block_elements, 8);
  kernel<<<grid, row_block_threads, 0, stream>>>(a);
}

template <typename Out>
void dequantize(const DequantizeArguments& a, cudaStream_t stream) {
  const bool aligned = a.out_stride % pack_size<Out> == 0 && is_aligned(a.out);
  const auto kernel = aligned ? dequantize_kernel<Out, true> : dequantize_kernel<Out, false>;
  const dim3 grid = row_grid(a.rows, a.width / lane_elements, warp_size);
  kernel<<<grid, row_block_threads, 0, stream>>>(a);
}

}  // namespace

void launch_permute(Element in, Element out, bool gather, const PermuteArguments& arguments,
                    cudaStream_t stream) {
  if (in == Element::f32) {
    permute<float>(out, gather, arguments, stream);
  } else {
    permute<__nv_bfloat16>(out, gather, arguments, stream);
  }
  check_launch("permute");
}

void launch_permute_quantized(Element in, const PermuteArguments& arguments, cudaStream_t stream) {
  if (in == Element::f32) {
    permute_quantized<float>(arguments, stream);
  } else {
    permute_quantized<__nv_bfloat16>(arguments, stream);
  }
  check_launch("permute_quantized");
}

void launch_dequantize(Element out, const DequantizeArguments& arguments, cudaStream_t stream) {
  if (out == Element::f32) {
    dequantize<float>(arguments, stream);
  } else {
    dequantize<__nv_bfloat16>(arguments, stream);
  }
  check_launch("dequantize");
}

}  // namespace farskip::cuda
