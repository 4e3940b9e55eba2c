#include <algorithm>

#include "farskip/cuda/launch.h"
#include "farskip/cuda/router_logits_kernels.h"

// A product of many tokens with few experts: bound by reading x once, so a block takes all experts
// it can, and the tensor cores' older, warp-wide instruction is fast enough where every scheduler
// has several warps to choose from.
namespace farskip::cuda {
namespace {

constexpr int tile_width = logits_width_step;  // of one stage
constexpr int units = tile_width / 8;          // accesses of 16 bytes in a row of a stage
constexpr int stages = 4;

// Where a unit lies in shared memory: turned by the row, so that eight rows meet no bank twice.
__device__ __forceinline__ int place(int row, int unit) {
  return (row * units + (unit ^ (row % units))) * 8;
}

__device__ __forceinline__ void copy_unit(__nv_bfloat16* to, const __nv_bfloat16* from) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from));
}

// Four 8 x 8 matrices, lane l giving the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const __nv_bfloat16* from) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(from));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address));
}

__device__ __forceinline__ void multiply(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0,
                                         uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Rows behind the last one are read as the last one, and never written.
template <int Rows, int Threads>
__device__ __forceinline__ void load_tile(__nv_bfloat16* tile, const __nv_bfloat16* from,
                                          int64_t stride, int64_t rows, int column) {
#pragma unroll
  for (int i = threadIdx.x; i < Rows * units; i += Threads) {
    const int row = i / units, unit = i % units;
    copy_unit(tile + place(row, unit),
              from + min(static_cast<int64_t>(row), rows - 1) * stride + column + unit * 8);
  }
}

// What a warp and a block of `rows` x `columns` warps compute.
template <int WarpTokens, int WarpExperts, int Rows, int Columns>
struct Shape {
  static constexpr int rows = Rows, columns = Columns, threads = 32 * Rows * Columns;
  static constexpr int warp_tokens = WarpTokens, warp_experts = WarpExperts;
  static constexpr int tokens = WarpTokens * rows, experts = WarpExperts * columns;
  static constexpr int stage = (tokens + experts) * tile_width;  // elements
};
using Narrow = Shape<16, 32, 4, 2>;  // few experts: more blocks
using Wide = Shape<32, 32, 4, 4>;    // many: what a block loads serves more products

template <typename S>
using Sums = float[S::warp_tokens / 16][S::warp_experts / 8][4];

template <typename S>
__device__ __forceinline__ void multiply_tile(Sums<S>& sums, const __nv_bfloat16* tokens,
                                              const __nv_bfloat16* experts) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first_token = warp / S::columns * S::warp_tokens;
  const int first_expert = warp % S::columns * S::warp_experts;
#pragma unroll
  for (int step = 0; step < tile_width / 16; ++step) {
    uint32_t a[S::warp_tokens / 16][4];
#pragma unroll
    for (int i = 0; i < S::warp_tokens / 16; ++i) {
      load_matrices(a[i], tokens + place(first_token + i * 16 + lane % 16, step * 2 + lane / 16));
    }
#pragma unroll
    for (int pair = 0; pair < S::warp_experts / 16; ++pair) {
      uint32_t b[4];
      load_matrices(b, experts + place(first_expert + pair * 16 + lane / 16 * 8 + lane % 8,
                                       step * 2 + lane / 8 % 2));
#pragma unroll
      for (int i = 0; i < S::warp_tokens / 16; ++i) {
        multiply(sums[i][2 * pair], a[i], b[0], b[1]);
        multiply(sums[i][2 * pair + 1], a[i], b[2], b[3]);
      }
    }
  }
}

template <typename S>
__device__ __forceinline__ void store(const RouterLogitsArguments& a, const Sums<S>& sums,
                                      int64_t block_token, int block_expert) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first_token = block_token + warp / S::columns * S::warp_tokens + lane / 4;
  const int first_expert = block_expert + warp % S::columns * S::warp_experts + lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < S::warp_tokens / 16; ++i) {
#pragma unroll
    for (int j = 0; j < S::warp_experts / 8 * 4; ++j) {
      const int64_t token = first_token + i * 16 + j % 4 / 2 * 8;
      const int expert = first_expert + j / 4 * 8 + j % 2;
      if (token < a.tokens && expert < a.experts) {
        a.out[token * a.experts + expert] = sums[i][j / 4][j % 4];
      }
    }
  }
}

template <typename S>
__global__ void __launch_bounds__(S::threads) router_logits(const RouterLogitsArguments a) {
  extern __shared__ __nv_bfloat16 shared[];
  const int64_t first_token = static_cast<int64_t>(blockIdx.x) * S::tokens;
  const int first_expert = static_cast<int>(blockIdx.y) * S::experts;
  const int steps = a.width / tile_width;
  const auto load = [&](int step) {
    if (step < steps) {
      __nv_bfloat16* const tile = shared + step % stages * S::stage;
      load_tile<S::tokens, S::threads>(tile, a.x + first_token * a.x_stride, a.x_stride,
                                       a.tokens - first_token, step * tile_width);
      load_tile<S::experts, S::threads>(tile + S::tokens * tile_width,
                                        a.weight + static_cast<int64_t>(first_expert) * a.width,
                                        a.width, a.experts - first_expert, step * tile_width);
    }
    asm volatile("cp.async.commit_group;");
  };
  Sums<S> sums = {};
  for (int step = 0; step < stages - 1; ++step) load(step);
  for (int step = 0; step < steps; ++step) {
    asm volatile("cp.async.wait_group %0;" ::"n"(stages - 2));
    __syncthreads();
    load(step + stages - 1);
    const __nv_bfloat16* const tile = shared + step % stages * S::stage;
    multiply_tile<S>(sums, tile, tile + S::tokens * tile_width);
  }
  store<S>(a, sums, first_token, first_expert);
}

template <typename S>
void launch(const RouterLogitsArguments& a, cudaStream_t stream) {
  constexpr int bytes = stages * S::stage * sizeof(__nv_bfloat16);
  check_call(
      cudaFuncSetAttribute(router_logits<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
      "cudaFuncSetAttribute");
  const dim3 grid(static_cast<unsigned>(divide_up(a.tokens, S::tokens)),
                  static_cast<unsigned>(divide_up(a.experts, S::experts)));
  router_logits<S><<<grid, S::threads, bytes, stream>>>(a);
  check_launch("router_logits");
}

}  // namespace

void launch_router_logits(const RouterLogitsArguments& arguments, cudaStream_t stream) {
  if (arguments.experts <= 64) {
    launch<Narrow>(arguments, stream);
  } else {
    launch<Wide>(arguments, stream);
  }
}

}  // namespace farskip::cuda
