#include "farskip/cuda/norm_kernels.h"
#include "farskip/cuda/row_packs.cuh"

namespace farskip::cuda {
namespace {

constexpr int block_threads = most_row_threads;
constexpr int sum_packs = 4;  // of a thread, all loaded before the first is used

// sums[p] += term's packs, rounded as a stored sum would be.
template <typename T, int Packs>
__device__ __forceinline__ void add_rounded(Pack<T> (&sums)[Packs], const Pack<T> (&term)[Packs]) {
#pragma unroll
  for (int p = 0; p < Packs; ++p) {
    float a[pack_size<T>], b[pack_size<T>];
    unpack(sums[p], a);
    unpack(term[p], b);
#pragma unroll
    for (int i = 0; i < pack_size<T>; ++i) a[i] += b[i];
    repack(sums[p], a);
  }
}

// The sum of all terms at this thread's packs. With the number of terms known when compiled, the
// loads of all terms are in flight at once; Count 0: any number.
template <typename T, int Packs, int Count, bool Aligned>
__device__ __forceinline__ void sum_packs_of(Pack<T> (&sums)[Packs], const Terms& terms,
                                             int64_t offset, int first, int step, int end) {
  const auto term = [&](int i) { return static_cast<const T*>(terms.address[i]) + offset; };
  load_packs<T, Packs, Aligned>(sums, term(0), first, step, end);
  if constexpr (Count > 1) {
    Pack<T> others[Count - 1][Packs];
#pragma unroll
    for (int i = 1; i < Count; ++i) {
      load_packs<T, Packs, Aligned>(others[i - 1], term(i), first, step, end);
    }
#pragma unroll
    for (int i = 1; i < Count; ++i) add_rounded<T, Packs>(sums, others[i - 1]);
  } else if constexpr (Count == 0) {
    for (int i = 1; i < terms.count; ++i) {
      Pack<T> other[Packs];
      load_packs<T, Packs, Aligned>(other, term(i), first, step, end);
      add_rounded<T, Packs>(sums, other);
    }
  }
}

template <typename T, int Count, bool Aligned>
__global__ void __launch_bounds__(block_threads)
    sum_kernel(T* out, const __grid_constant__ Terms terms, int64_t count) {
  constexpr int step = block_threads * pack_size<T>;
  const int64_t offset = int64_t{blockIdx.x} * step * sum_packs;
  const int first = static_cast<int>(threadIdx.x) * pack_size<T>;
  const int end = static_cast<int>(min(count - offset, int64_t{step} * sum_packs));
  Pack<T> sums[sum_packs];
  sum_packs_of<T, sum_packs, Count, Aligned>(sums, terms, offset, first, step, end);
  store_packs<T, sum_packs, Aligned>(out + offset, sums, first, step, end);
}

// A row stays in registers between reading and writing.
template <typename T, int Packs, int Count, bool Aligned>
__global__ void __launch_bounds__(block_threads, Packs <= 2   ? 4
                                                 : Packs <= 4 ? 3
                                                              : 1)
    rms_norm_kernel(const __grid_constant__ RmsNormArguments a) {
  __shared__ WarpPartials partial[2];
  const int step = static_cast<int>(blockDim.x) * pack_size<T>;
  const int first = static_cast<int>(threadIdx.x) * pack_size<T>;
  const int width = static_cast<int>(a.width);
  int parity = 0;
  for (int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y; row < a.rows;
       row += int64_t{gridDim.x} * blockDim.y, parity ^= 1) {
    const int64_t outer = a.heads == 1 ? row : row / a.heads;
    const int64_t head = row - outer * a.heads;
    Pack<T> sums[Packs];
    sum_packs_of<T, Packs, Count, Aligned>(
        sums, a.terms, outer * a.in_stride + head * a.in_head_stride, first, step, width);
    const float squares = sum_of_squares(sums);
    if (a.sum != nullptr) {
      store_packs<T, Packs, Aligned>(static_cast<T*>(a.sum) + row * a.width, sums, first, step,
                                     width);
    }
    // Read again for every row, from the nearest cache: kept, it would take the registers that more
    // rows in flight need.
    Pack<T> weight[Packs];
    load_packs<T, Packs, Aligned>(weight, static_cast<const T*>(a.weight), first, step, width);
    const float scale = inverse_rms(row_sum(squares, partial[parity]), width, a.eps);
#pragma unroll
    for (int p = 0; p < Packs; ++p) {
      float values[pack_size<T>], factors[pack_size<T>];
      unpack(sums[p], values);
      unpack(weight[p], factors);
#pragma unroll
      for (int i = 0; i < pack_size<T>; ++i) values[i] *= scale;
      repack(sums[p], values);  // rounds before the weight, as the models do
      unpack(sums[p], values);
#pragma unroll
      for (int i = 0; i < pack_size<T>; ++i) values[i] *= factors[i];
      repack(sums[p], values);
    }
    T* const out = static_cast<T*>(a.normed) + outer * a.out_stride + head * a.out_head_stride;
    store_packs<T, Packs, Aligned>(out, sums, first, step, width);
  }
}

bool terms_aligned(const Terms& terms) {
  for (int i = 0; i < terms.count; ++i) {
    if (!is_aligned(terms.address[i])) return false;
  }
  return true;
}

template <typename T>
void sum(void* out, const Terms& terms, int64_t count, cudaStream_t stream) {
  const bool aligned = count % pack_size<T> == 0 && is_aligned(out) && terms_aligned(terms);
  const int64_t blocks = divide_up(count, int64_t{block_threads} * pack_size<T> * sum_packs);
  const auto kernel = !aligned           ? sum_kernel<T, 0, false>
                      : terms.count == 1 ? sum_kernel<T, 1, true>
                      : terms.count == 2 ? sum_kernel<T, 2, true>
                      : terms.count == 3 ? sum_kernel<T, 3, true>
                                         : sum_kernel<T, 0, true>;
  kernel<<<static_cast<unsigned>(blocks), block_threads, 0, stream>>>(static_cast<T*>(out), terms,
                                                                      count);
}

template <typename T>
bool row_aligned(const RmsNormArguments& a) {
  const int64_t together = a.width | a.in_stride | a.in_head_stride | a.out_stride |
                           a.out_head_stride;  // a multiple of the pack only if all are
  return together % pack_size<T> == 0 && terms_aligned(a.terms) && is_aligned(a.normed) &&
         is_aligned(a.weight) && is_aligned(a.sum);
}

template <typename T>
void rms_norm(const RmsNormArguments& a, cudaStream_t stream) {
  with_packs<T>(a.width, [&](auto packs) {
    constexpr int held = packs();
    const dim3 threads = row_threads<T, held>(a.width);
    const auto kernel = !row_aligned<T>(a)   ? rms_norm_kernel<T, held, 0, false>
                        : a.terms.count == 1 ? rms_norm_kernel<T, held, 1, true>
                        : a.terms.count == 2 ? rms_norm_kernel<T, held, 2, true>
                        : a.terms.count == 3 ? rms_norm_kernel<T, held, 3, true>
                                             : rms_norm_kernel<T, held, 0, true>;
    kernel<<<static_cast<unsigned>(row_blocks(a.rows, threads)), threads, 0, stream>>>(a);
  });
}

}  // namespace

void launch_sum(Element element, void* out, const Terms& terms, int64_t count,
                cudaStream_t stream) {
  if (element == Element::f32) {
    sum<float>(out, terms, count, stream);
  } else {
    sum<__nv_bfloat16>(out, terms, count, stream);
  }
  check_launch("sum");
}

void launch_rms_norm(Element element, const RmsNormArguments& arguments, cudaStream_t stream) {
  if (element == Element::f32) {
    rms_norm<float>(arguments, stream);
  } else {
    rms_norm<__nv_bfloat16>(arguments, stream);
  }
  check_launch("rms_norm");
}

}  // namespace farskip::cuda
