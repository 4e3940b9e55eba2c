#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "farskip/cuda/launch.h"

// What device code shares: elements in fp32 and back, and packs of them in one 16-byte access.
namespace farskip::cuda {

inline constexpr unsigned full_warp = 0xffffffffu;
inline constexpr int warp_size = 32;

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <typename T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// `value` as it reads back after being stored as a T.
template <typename T>
__device__ __forceinline__ float rounded(float value) {
  return to_float(from_float<T>(value));
}

// Two bf16 elements in a word, the first in its lower half; bf16 is the upper half of an fp32.
__device__ __forceinline__ uint32_t pair_of(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ __forceinline__ float first_of(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float second_of(uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}

// Elements of one memory access.
template <typename T>
inline constexpr int pack_size = static_cast<int>(access_bytes / sizeof(T));

// Kept as words: bf16 elements held one by one would take a register each.
template <typename T>
struct alignas(access_bytes) Pack {
  uint32_t words[access_bytes / sizeof(uint32_t)];
};

__device__ __forceinline__ void unpack(const Pack<float>& pack, float (&values)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) values[i] = __uint_as_float(pack.words[i]);
}

__device__ __forceinline__ void unpack(const Pack<__nv_bfloat16>& pack, float (&values)[8]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = first_of(pack.words[i]);
    values[2 * i + 1] = second_of(pack.words[i]);
  }
}

__device__ __forceinline__ void repack(Pack<float>& pack, const float (&values)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) pack.words[i] = __float_as_uint(values[i]);
}

__device__ __forceinline__ void repack(Pack<__nv_bfloat16>& pack, const float (&values)[8]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) pack.words[i] = pair_of(values[2 * i], values[2 * i + 1]);
}

// The pack at `from`; element by element unless `Aligned`, with zeros from `count` on.
template <typename T, bool Aligned>
__device__ __forceinline__ Pack<T> load_pack(const T* from, int count) {
  Pack<T> pack;
  if constexpr (Aligned) {
    *reinterpret_cast<uint4*>(&pack) = *reinterpret_cast<const uint4*>(from);
  } else {
    float values[pack_size<T>];
#pragma unroll
    for (int i = 0; i < pack_size<T>; ++i) values[i] = i < count ? to_float(from[i]) : 0.0f;
    repack(pack, values);
  }
  return pack;
}

template <typename T, bool Aligned>
__device__ __forceinline__ void store_pack(T* to, const Pack<T>& pack, int count) {
  if constexpr (Aligned) {
    *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(&pack);
  } else {
    float values[pack_size<T>];
    unpack(pack, values);
#pragma unroll
    for (int i = 0; i < pack_size<T>; ++i) {
      if (i < count) to[i] = from_float<T>(values[i]);
    }
  }
}

// The sum over a warp, the same bits in every lane.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int mask = warp_size / 2; mask > 0; mask /= 2) {
    value += __shfl_xor_sync(full_warp, value, mask);
  }
  return value;
}

}  // namespace farskip::cuda
