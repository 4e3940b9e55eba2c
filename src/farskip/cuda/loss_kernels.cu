#include <cmath>

#include "farskip/cuda/loss_kernels.h"
#include "farskip/cuda/row_packs.cuh"

namespace farskip::cuda {
namespace {

constexpr int row_threads = 512, sum_threads = 1024, gradient_threads = 256;
constexpr int packs_in_flight = 4;  // of a thread

// The sum over i of exp(x_i) as exp(most) * sum, with most the largest x_i so far.
struct ExpSum {
  float most, sum;
};

__device__ __forceinline__ ExpSum join(const ExpSum& a, const ExpSum& b) {
  const float most = fmaxf(a.most, b.most);
  if (most == -INFINITY) return {most, 0.0f};
  return {most, a.sum * __expf(a.most - most) + b.sum * __expf(b.most - most)};
}

template <typename T>
__device__ __forceinline__ void add_pack(ExpSum& total, const Pack<T>& pack, int count) {
  float values[pack_size<T>], most = total.most;
  unpack(pack, values);
#pragma unroll
  for (int i = 0; i < pack_size<T>; ++i) {
    if (i >= count) values[i] = -INFINITY;
    most = fmaxf(most, values[i]);
  }
  if (most == -INFINITY) return;
  float sum = total.sum * __expf(total.most - most);
#pragma unroll
  for (int i = 0; i < pack_size<T>; ++i) sum += __expf(values[i] - most);
  total = {most, sum};
}

__device__ __forceinline__ ExpSum join_block(ExpSum mine) {
  __shared__ ExpSum of_warp[row_threads / warp_size];
#pragma unroll
  for (int mask = warp_size / 2; mask > 0; mask /= 2) {
    mine = join(mine, {__shfl_xor_sync(full_warp, mine.most, mask),
                       __shfl_xor_sync(full_warp, mine.sum, mask)});
  }
  if (threadIdx.x % warp_size == 0) of_warp[threadIdx.x / warp_size] = mine;
  __syncthreads();
  ExpSum all = of_warp[0];
  for (int warp = 1; warp < row_threads / warp_size; ++warp) all = join(all, of_warp[warp]);
  return all;
}

// A block a token.
template <typename T, bool Aligned>
__global__ void __launch_bounds__(row_threads)
    log_sum_exp_kernel(const __grid_constant__ CrossEntropyArguments a, float* terms) {
  constexpr int step = row_threads * pack_size<T>;
  const int64_t token = blockIdx.x;
  const T* const row = static_cast<const T*>(a.logits) + token * a.vocabulary;
  const int width = static_cast<int>(a.vocabulary);
  ExpSum mine{-INFINITY, 0.0f};
  for (int base = static_cast<int>(threadIdx.x) * pack_size<T>; base < width;
       base += packs_in_flight * step) {
    Pack<T> packs[packs_in_flight];
    load_packs<T, packs_in_flight, Aligned>(packs, row, base, step, width);
#pragma unroll
    for (int p = 0; p < packs_in_flight; ++p) {
      const int at = base + p * step;
      if (at < width) add_pack<T>(mine, packs[p], width - at);
    }
  }
  const ExpSum all = join_block(mine);
  if (threadIdx.x != 0) return;
  const float log_sum_exp = all.most + logf(all.sum);
  const int64_t label = a.labels[token];
  a.log_sum_exp[token] = log_sum_exp;
  terms[token] = label < 0 ? 0.0f : label < a.vocabulary ? log_sum_exp - to_float(row[label]) : NAN;
}

__global__ void __launch_bounds__(sum_threads)
    mean_kernel(float* loss, const float* terms, const float* label_count, int64_t tokens) {
  __shared__ float of_warp[sum_threads / warp_size];
  float sum = 0.0f;
  for (int64_t token = threadIdx.x; token < tokens; token += sum_threads) sum += terms[token];
  sum = warp_sum(sum);
  if (threadIdx.x % warp_size == 0) of_warp[threadIdx.x / warp_size] = sum;
  __syncthreads();
  if (threadIdx.x >= warp_size) return;
  sum = warp_sum(of_warp[threadIdx.x]);
  if (threadIdx.x == 0) loss[0] = sum / label_count[0];
}

// gridDim.y blocks a token.
template <typename T, bool Aligned>
__global__ void __launch_bounds__(gradient_threads)
    cross_entropy_gradient_kernel(const __grid_constant__ CrossEntropyArguments a, T* out) {
  constexpr int step = gradient_threads * pack_size<T>;
  const int64_t token = blockIdx.x;
  const T* const row = static_cast<const T*>(a.logits) + token * a.vocabulary;
  T* const to = out + token * a.vocabulary;
  const int width = static_cast<int>(a.vocabulary);
  const int first = static_cast<int>(blockIdx.y) * step * packs_in_flight +
                    static_cast<int>(threadIdx.x) * pack_size<T>;
  const int64_t label = a.labels[token];
  const float weight = label < 0 ? 0.0f : 1.0f / a.label_count[0];
  const float log_sum_exp = a.log_sum_exp[token];
  Pack<T> packs[packs_in_flight];
  load_packs<T, packs_in_flight, Aligned>(packs, row, first, step, width);
#pragma unroll
  for (int p = 0; p < packs_in_flight; ++p) {
    const int at = first + p * step;
    if (at >= width) continue;
    float values[pack_size<T>];
    unpack(packs[p], values);
#pragma unroll
    for (int i = 0; i < pack_size<T>; ++i) {
      const float one = at + i == label ? 1.0f : 0.0f;
      values[i] = (__expf(values[i] - log_sum_exp) - one) * weight;
    }
    repack(packs[p], values);
  }
  store_packs<T, packs_in_flight, Aligned>(to, packs, first, step, width);
}

template <typename T>
bool rows_aligned(const CrossEntropyArguments& a) {
  return a.vocabulary % pack_size<T> == 0 && is_aligned(a.logits);
}

template <typename T>
void log_sum_exp(const CrossEntropyArguments& a, float* terms, cudaStream_t stream) {
  const auto kernel =
      rows_aligned<T>(a) ? log_sum_exp_kernel<T, true> : log_sum_exp_kernel<T, false>;
  kernel<<<static_cast<unsigned>(a.tokens), row_threads, 0, stream>>>(a, terms);
}

template <typename T>
void cross_entropy_gradient(const CrossEntropyArguments& a, void* out, cudaStream_t stream) {
  const bool aligned = rows_aligned<T>(a) && is_aligned(out);
  const auto kernel =
      aligned ? cross_entropy_gradient_kernel<T, true> : cross_entropy_gradient_kernel<T, false>;
  const int64_t parts =
      divide_up(a.vocabulary, int64_t{gradient_threads} * pack_size<T> * packs_in_flight);
  const dim3 grid(static_cast<unsigned>(a.tokens), static_cast<unsigned>(parts));
  kernel<<<grid, gradient_threads, 0, stream>>>(a, static_cast<T*>(out));
}

}  // namespace

void launch_cross_entropy(Element element, const CrossEntropyArguments& arguments, float* loss,
                          float* terms, cudaStream_t stream) {
  if (arguments.tokens > 0) {
    if (element == Element::f32) {
      log_sum_exp<float>(arguments, terms, stream);
    } else {
      log_sum_exp<__nv_bfloat16>(arguments, terms, stream);
    }
    check_launch("log_sum_exp");
  }
  mean_kernel<<<1, sum_threads, 0, stream>>>(loss, terms, arguments.label_count, arguments.tokens);
  check_launch("cross_entropy");
}

void launch_cross_entropy_gradient(Element element, const CrossEntropyArguments& arguments,
                                   void* out, cudaStream_t stream) {
  if (element == Element::f32) {
    cross_entropy_gradient<float>(arguments, out, stream);
  } else {
    cross_entropy_gradient<__nv_bfloat16>(arguments, out, stream);
  }
  check_launch("cross_entropy_gradient");
}

}  // namespace farskip::cuda
