#include "farskip/cuda/norm_gradient_kernels.h"
#include "farskip/cuda/row_packs.cuh"

namespace farskip::cuda {
namespace {

constexpr int part_threads = 1024;  // resident on a multiprocessor: more would make more parts
constexpr int sum_columns = 32, sum_lanes = 8;

template <typename T>
__device__ __forceinline__ T* row_of(void* base, const RowStrides& strides, int64_t outer,
                                     int64_t head) {
  return static_cast<T*>(base) + outer * strides.outer + head * strides.head;
}

template <typename T>
__device__ __forceinline__ const T* row_of(const void* base, const RowStrides& strides,
                                           int64_t outer, int64_t head) {
  return static_cast<const T*>(base) + outer * strides.outer + head * strides.head;
}

// d_y w . x, the sum along which the gradient by x leaves out.
template <typename T, int Packs>
__device__ __forceinline__ float weighed_dot(const Pack<T> (&d)[Packs], const Pack<T> (&w)[Packs],
                                             const Pack<T> (&x)[Packs]) {
  float sum = 0.0f;
#pragma unroll
  for (int p = 0; p < Packs; ++p) {
    float a[pack_size<T>], b[pack_size<T>], c[pack_size<T>];
    unpack(d[p], a);
    unpack(w[p], b);
    unpack(x[p], c);
#pragma unroll
    for (int i = 0; i < pack_size<T>; ++i) sum += a[i] * b[i] * c[i];
  }
  return sum;
}

template <typename T, int Packs, bool Aligned>
__global__ void __launch_bounds__(most_row_threads, Packs <= 2   ? 3
                                                    : Packs <= 4 ? 2
                                                                 : 1)
    rms_norm_gradient_kernel(const __grid_constant__ NormGradientArguments a) {
  __shared__ WarpPartials squares_partial[2], dot_partial[2];
  const int step = static_cast<int>(blockDim.x) * pack_size<T>;
  const int first = static_cast<int>(threadIdx.x) * pack_size<T>;
  const int width = static_cast<int>(a.width);
  int parity = 0;
  for (int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y; row < a.rows;
       row += int64_t{gridDim.x} * blockDim.y, parity ^= 1) {
    const int64_t outer = a.heads == 1 ? row : row / a.heads, head = row - outer * a.heads;
    Pack<T> x[Packs], d[Packs], weight[Packs];
    load_packs<T, Packs, Aligned>(x, row_of<T>(a.x, a.x_strides, outer, head), first, step, width);
    load_packs<T, Packs, Aligned>(d, row_of<T>(a.d_y, a.d_y_strides, outer, head), first, step,
                                  width);
    load_packs<T, Packs, Aligned>(weight, static_cast<const T*>(a.weight), first, step, width);
    const float squares = row_sum(sum_of_squares(x), squares_partial[parity]);
    const float dot = row_sum(weighed_dot(d, weight, x), dot_partial[parity]);
    const float scale = inverse_rms(squares, width, a.eps);
    const float along = scale * scale * dot / static_cast<float>(width);
#pragma unroll
    for (int p = 0; p < Packs; ++p) {
      float values[pack_size<T>], factors[pack_size<T>], inputs[pack_size<T>];
      unpack(d[p], values);
      unpack(weight[p], factors);
      unpack(x[p], inputs);
#pragma unroll
      for (int i = 0; i < pack_size<T>; ++i) {
        values[i] = scale * (values[i] * factors[i] - inputs[i] * along);
      }
      repack(d[p], values);
    }
    store_packs<T, Packs, Aligned>(row_of<T>(a.out, a.out_strides, outer, head), d, first, step,
                                   width);
  }
}

// Each row of threads sums d_y n over the rows that it comes by: a part.
template <typename T, int Packs, bool Aligned>
__global__ void __launch_bounds__(most_row_threads, Packs <= 4 ? 2 : 1)
    weight_gradient_parts_kernel(const __grid_constant__ NormGradientArguments a, float* parts) {
  __shared__ WarpPartials partial[2];
  const int step = static_cast<int>(blockDim.x) * pack_size<T>;
  const int first = static_cast<int>(threadIdx.x) * pack_size<T>;
  const int width = static_cast<int>(a.width);
  const int64_t part = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  float sums[Packs][pack_size<T>] = {};
  int parity = 0;
  for (int64_t row = part; row < a.rows; row += int64_t{gridDim.x} * blockDim.y, parity ^= 1) {
    const int64_t outer = a.heads == 1 ? row : row / a.heads, head = row - outer * a.heads;
    Pack<T> x[Packs], d[Packs];
    load_packs<T, Packs, Aligned>(x, row_of<T>(a.x, a.x_strides, outer, head), first, step, width);
    load_packs<T, Packs, Aligned>(d, row_of<T>(a.d_y, a.d_y_strides, outer, head), first, step,
                                  width);
    const float scale = inverse_rms(row_sum(sum_of_squares(x), partial[parity]), width, a.eps);
#pragma unroll
    for (int p = 0; p < Packs; ++p) {
      float values[pack_size<T>], inputs[pack_size<T>];
      unpack(d[p], values);
      unpack(x[p], inputs);
#pragma unroll
      for (int i = 0; i < pack_size<T>; ++i) sums[p][i] += values[i] * (inputs[i] * scale);
    }
  }
  float* const to = parts + part * a.width;
#pragma unroll
  for (int p = 0; p < Packs; ++p) {
#pragma unroll
    for (int i = 0; i < pack_size<T>; ++i) {
      const int column = first + p * step + i;
      if (column < width) to[column] = sums[p][i];
    }
  }
}

// Sums of columns, in the order of the rows of each lane and then of the lanes.
__global__ void __launch_bounds__(sum_columns* sum_lanes)
    column_sum_kernel(float* sums, const float* rows, int64_t count, int width) {
  __shared__ float of_lane[sum_lanes][sum_columns];
  const int column = static_cast<int>(blockIdx.x) * sum_columns + static_cast<int>(threadIdx.x);
  float sum = 0.0f;
  if (column < width) {
    for (int64_t row = threadIdx.y; row < count; row += sum_lanes)
      sum += rows[row * width + column];
  }
  of_lane[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width) return;
  for (int lane = 1; lane < sum_lanes; ++lane) sum += of_lane[lane][threadIdx.x];
  sums[column] = sum;
}

template <typename T>
bool row_aligned(const NormGradientArguments& a) {
  const int64_t together = a.width | a.out_strides.outer | a.out_strides.head |
                           a.d_y_strides.outer | a.d_y_strides.head | a.x_strides.outer |
                           a.x_strides.head;  // a multiple of the pack only if all are
  return together % pack_size<T> == 0 && is_aligned(a.out) && is_aligned(a.d_y) &&
         is_aligned(a.x) && is_aligned(a.weight);
}

template <typename T>
void rms_norm_gradient(const NormGradientArguments& a, cudaStream_t stream) {
  with_packs<T>(a.width, [&](auto packs) {
    constexpr int held = packs();
    const dim3 threads = row_threads<T, held>(a.width);
    const auto kernel = row_aligned<T>(a) ? rms_norm_gradient_kernel<T, held, true>
                                          : rms_norm_gradient_kernel<T, held, false>;
    kernel<<<static_cast<unsigned>(row_blocks(a.rows, threads)), threads, 0, stream>>>(a);
  });
}

template <typename T>
int64_t parts_of(int64_t rows, int64_t width) {
  int64_t parts = 0;
  with_packs<T>(width, [&](auto packs) {
    const dim3 threads = row_threads<T, packs()>(width);
    parts = row_blocks(rows, threads, part_threads) * threads.y;
  });
  return parts;
}

template <typename T>
void weight_gradient_parts(const NormGradientArguments& a, float* parts, cudaStream_t stream) {
  with_packs<T>(a.width, [&](auto packs) {
    constexpr int held = packs();
    const dim3 threads = row_threads<T, held>(a.width);
    const auto kernel = row_aligned<T>(a) ? weight_gradient_parts_kernel<T, held, true>
                                          : weight_gradient_parts_kernel<T, held, false>;
    const int64_t blocks = row_blocks(a.rows, threads, part_threads);
    kernel<<<static_cast<unsigned>(blocks), threads, 0, stream>>>(a, parts);
  });
}

}  // namespace

void launch_rms_norm_gradient(Element element, const NormGradientArguments& arguments,
                              cudaStream_t stream) {
  if (element == Element::f32) {
    rms_norm_gradient<float>(arguments, stream);
  } else {
    rms_norm_gradient<__nv_bfloat16>(arguments, stream);
  }
  check_launch("rms_norm_gradient");
}

int64_t weight_gradient_parts(Element element, int64_t rows, int64_t width) {
  return element == Element::f32 ? parts_of<float>(rows, width)
                                 : parts_of<__nv_bfloat16>(rows, width);
}

void launch_rms_norm_weight_gradient(Element element, const NormGradientArguments& arguments,
                                     float* sums, float* parts, cudaStream_t stream) {
  if (element == Element::f32) {
    weight_gradient_parts<float>(arguments, parts, stream);
  } else {
    weight_gradient_parts<__nv_bfloat16>(arguments, parts, stream);
  }
  check_launch("rms_norm_weight_gradient");
  const int64_t count = weight_gradient_parts(element, arguments.rows, arguments.width);
  column_sum_kernel<<<static_cast<unsigned>(divide_up(arguments.width, sum_columns)),
                      dim3(sum_columns, sum_lanes), 0, stream>>>(sums, parts, count,
                                                                 static_cast<int>(arguments.width));
  check_launch("column_sum");
}

}  // namespace farskip::cuda
