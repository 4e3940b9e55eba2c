#include "farskip/cuda/divide.cuh"
#include "farskip/cuda/mlp_kernels.h"
#include "farskip/cuda/pack.cuh"
#include "farskip/cuda/silu.cuh"

namespace farskip::cuda {
namespace {

constexpr int block_threads = 256;
constexpr int thread_packs = 2;  // of gate and of up each, all loaded before the first is used

template <typename T>
__device__ __forceinline__ Pack<T> silu_multiply(const Pack<T>& gate, const Pack<T>& up) {
  float a[pack_size<T>], b[pack_size<T>];
  unpack(gate, a);
  unpack(up, b);
  Pack<T> result;
#pragma unroll
  for (int i = 0; i < pack_size<T>; ++i) a[i] = silu(a[i], T{});
  repack(result, a);  // rounds, as the operator by operator form does
  unpack(result, a);
#pragma unroll
  for (int i = 0; i < pack_size<T>; ++i) a[i] *= b[i];
  repack(result, a);
  return result;
}

template <typename T, bool Aligned>
__global__ void __launch_bounds__(block_threads)
    silu_multiply_kernel(const __grid_constant__ SiluArguments a, uint32_t packs,
                         Divisor row_packs) {
  const int width = static_cast<int>(a.width);
  const T* const gate_up = static_cast<const T*>(a.gate_up);
  T* const out = static_cast<T*>(a.out);
  const uint32_t rows = a.row_count != nullptr ? *a.row_count : UINT32_MAX;
  const uint32_t first = blockIdx.x * (block_threads * thread_packs) + threadIdx.x;
  Pack<T> gate[thread_packs], up[thread_packs];
  int64_t to[thread_packs];
  int count[thread_packs];
#pragma unroll
  for (int p = 0; p < thread_packs; ++p) {
    const uint32_t index = first + p * block_threads;
    const uint32_t row = row_packs.quotient(index);
    const int column = static_cast<int>(index - row * row_packs.divisor()) * pack_size<T>;
    count[p] = index < packs && row < rows ? width - column : 0;
    to[p] = int64_t{row} * width + column;
    if (count[p] <= 0) continue;
    const T* const from = gate_up + to[p] + int64_t{row} * width;
    gate[p] = load_pack<T, Aligned>(from, count[p]);
    up[p] = load_pack<T, Aligned>(from + width, count[p]);
  }
#pragma unroll
  for (int p = 0; p < thread_packs; ++p) {
    if (count[p] <= 0) continue;
    store_pack<T, Aligned>(out + to[p], silu_multiply<T>(gate[p], up[p]), count[p]);
  }
}

template <typename T>
void silu_multiply(const SiluArguments& a, cudaStream_t stream) {
  const int64_t row_packs = divide_up(a.width, pack_size<T>), packs = a.rows * row_packs;
  const bool aligned = a.width % pack_size<T> == 0 && is_aligned(a.out) && is_aligned(a.gate_up);
  const auto kernel = aligned ? silu_multiply_kernel<T, true> : silu_multiply_kernel<T, false>;
  const int64_t blocks = divide_up(packs, block_threads * thread_packs);
  kernel<<<static_cast<unsigned>(blocks), block_threads, 0, stream>>>(
      a, static_cast<uint32_t>(packs), Divisor(static_cast<uint32_t>(row_packs)));
}

// With s the logistic function of gate: by gate d up s (1 + gate (1 - s)), by up d silu(gate).
template <typename T>
__device__ __forceinline__ void silu_multiply_gradient(Pack<T>& gate, Pack<T>& up,
                                                       const Pack<T>& d_activated) {
  float a[pack_size<T>], b[pack_size<T>], d[pack_size<T>];
  unpack(gate, a);
  unpack(up, b);
  unpack(d_activated, d);
#pragma unroll
  for (int i = 0; i < pack_size<T>; ++i) {
    const float x = a[i], s = logistic(x, T{});
    a[i] = d[i] * b[i] * s * (1.0f + x * (1.0f - s));
    b[i] = d[i] * x * s;
  }
  repack(gate, a);
  repack(up, b);
}

template <typename T, bool Aligned>
__global__ void __launch_bounds__(block_threads)
    silu_multiply_gradient_kernel(const __grid_constant__ SiluGradientArguments a, uint32_t packs,
                                  Divisor row_packs) {
  const uint32_t index = blockIdx.x * block_threads + threadIdx.x;
  if (index >= packs) return;
  const uint32_t row = row_packs.quotient(index);
  const int width = static_cast<int>(a.width);
  const int column = static_cast<int>(index - row * row_packs.divisor()) * pack_size<T>;
  const int count = width - column;
  const int64_t at = int64_t{row} * width + column, of_gate = at + int64_t{row} * width;
  const T* const from = static_cast<const T*>(a.gate_up) + of_gate;
  Pack<T> gate = load_pack<T, Aligned>(from, count);
  Pack<T> up = load_pack<T, Aligned>(from + width, count);
  const Pack<T> d = load_pack<T, Aligned>(static_cast<const T*>(a.d_activated) + at, count);
  store_pack<T, Aligned>(static_cast<T*>(a.activated) + at, silu_multiply<T>(gate, up), count);
  silu_multiply_gradient<T>(gate, up, d);
  T* const to = static_cast<T*>(a.deltas) + of_gate;
  store_pack<T, Aligned>(to, gate, count);
  store_pack<T, Aligned>(to + width, up, count);
}

template <typename T>
void silu_multiply_gradient(const SiluGradientArguments& a, cudaStream_t stream) {
  const int64_t row_packs = divide_up(a.width, pack_size<T>), packs = a.rows * row_packs;
  const bool aligned = a.width % pack_size<T> == 0 && is_aligned(a.deltas) &&
                       is_aligned(a.activated) && is_aligned(a.d_activated) &&
                       is_aligned(a.gate_up);
  const auto kernel =
      aligned ? silu_multiply_gradient_kernel<T, true> : silu_multiply_gradient_kernel<T, false>;
  kernel<<<static_cast<unsigned>(divide_up(packs, block_threads)), block_threads, 0, stream>>>(
      a, static_cast<uint32_t>(packs), Divisor(static_cast<uint32_t>(row_packs)));
}

}  // namespace

void launch_silu_multiply_gradient(Element element, const SiluGradientArguments& arguments,
                                   cudaStream_t stream) {
  if (element == Element::f32) {
    silu_multiply_gradient<float>(arguments, stream);
  } else {
    silu_multiply_gradient<__nv_bfloat16>(arguments, stream);
  }
  check_launch("silu_multiply_gradient");
}

void launch_silu_multiply(Element element, const SiluArguments& arguments, cudaStream_t stream) {
  if (element == Element::f32) {
    silu_multiply<float>(arguments, stream);
  } else {
    silu_multiply<__nv_bfloat16>(arguments, stream);
  }
  check_launch("silu_multiply");
}

}  // namespace farskip::cuda
