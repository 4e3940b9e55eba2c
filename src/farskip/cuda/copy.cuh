#pragma once

#include <cstdint>

// What device code that copies shares.
namespace farskip::cuda {

// Copies elements first, first + step, ... below `count`, several loaded before the first is
// stored. Data that passes through is kept out of the caches where that is possible.
template <typename T>
__device__ __forceinline__ void copy_elements(T* __restrict__ to, const T* __restrict__ from,
                                              int64_t count, int64_t first, int64_t step) {
  constexpr int in_flight = 4;
  int64_t i = first;
  for (; i + (in_flight - 1) * step < count; i += in_flight * step) {
    T values[in_flight];
#pragma unroll
    for (int j = 0; j < in_flight; ++j) values[j] = __ldcs(from + i + j * step);
#pragma unroll
    for (int j = 0; j < in_flight; ++j) __stcs(to + i + j * step, values[j]);
  }
  for (; i < count; i += step) __stcs(to + i, __ldcs(from + i));
}

// The same of bytes, in accesses as wide as both addresses and `bytes` allow.
__device__ __forceinline__ void copy_bytes(char* to, const char* from, int64_t bytes, int64_t first,
                                           int64_t step) {
  const auto alignment = reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) |
                         static_cast<uintptr_t>(bytes);
  if (alignment % sizeof(uint4) == 0) {
    copy_elements(reinterpret_cast<uint4*>(to), reinterpret_cast<const uint4*>(from),
                  bytes / static_cast<int64_t>(sizeof(uint4)), first, step);
  } else {
    copy_elements(to, from, bytes, first, step);
  }
}

}  // namespace farskip::cuda
