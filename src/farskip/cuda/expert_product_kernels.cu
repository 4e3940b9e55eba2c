#include <cudaTypedefs.h>

#include <algorithm>

#include "farskip/cuda/divide.cuh"
#include "farskip/cuda/expert_product_kernels.h"
#include "farskip/cuda/expert_tiles.cuh"
#include "farskip/cuda/matrix_units.cuh"
#include "farskip/cuda/pack.cuh"
#include "farskip/cuda/silu.cuh"
#include "farskip/cuda/tile_queue.cuh"

// Each block has three warpgroups: one that copies stages of `in` and of the matrices to shared
// memory, and two that multiply, 64 rows of a tile each. A block works off tile after tile
// (tile_queue.cuh), so that the next one's copies run while a tile is finished. Two blocks of a
// cluster take tiles that have the matrix or the rows in common and bring each other half of that:
// at the matrix units' speed, what crosses the second-level cache is what limits one block alone.
namespace farskip::cuda {
namespace {

constexpr int tile_depth = 64, half_columns = tile_columns / 2;
constexpr int stages = 4, step_depth = 16;
constexpr int group_threads = 128, group_rows = 64, warp_rows = 16;
constexpr int multiplying_warps = 8, block_threads = 3 * group_threads;
constexpr int out_columns = 64;                             // of a warp's rows, stored at once
constexpr int out_stride = out_columns * 2 + access_bytes;  // bytes; free of bank conflicts

struct Stage {
  __nv_bfloat16 in[tile_rows * tile_depth];
  __nv_bfloat16 matrix[tile_columns * tile_depth];
};

struct SharedMemory {
  Stage stage[stages];
  uint8_t out[multiplying_warps][warp_rows * out_stride];
  uint64_t full[stages], empty[stages];
  TileQueue queue;
};

enum class Form { product, swiglu, gathered_swiglu };

template <Form form>
constexpr int columns_of = form == Form::product ? tile_columns : half_columns;
template <Form form>
constexpr int matrices_of = form == Form::product ? 1 : 2;

// Goes through the stages in turn; the parity of the barriers' phases changes with every turn.
struct Turn {
  int stage = 0, parity = 0;
  __device__ __forceinline__ void next() {
    if (++stage < stages) return;
    stage = 0;
    parity ^= 1;
  }
};

struct Work {
  ExpertProductArguments arguments;
  int steps, columns;  // stages of a tile; columns of tiles
  Divisor choices;
};

template <int Blocks>
__device__ __forceinline__ ExpertTiles<Blocks> tiles_of(const Work& work, int block) {
  const ExpertProductArguments& a = work.arguments;
  return {a.ends, a.experts, a.rows, work.columns, block};
}

// Brings the stage's part of a matrix with `column` as its first, in two boxes: all of it to this
// block, or to both blocks the one of them that is this block's share.
template <int Blocks>
__device__ __forceinline__ void load_halves(__nv_bfloat16* to, const CUtensorMap& map,
                                            uint64_t* barrier, int column, int first, int second,
                                            int half_rows, bool shared, int block) {
  __nv_bfloat16* const behind = to + half_rows * tile_depth;
  if (Blocks > 1 && shared) {
    load_box_for_two(block == 0 ? to : behind, map, barrier, column, block == 0 ? first : second);
  } else {
    load_box(to, map, barrier, column, first);
    load_box(behind, map, barrier, column, second);
  }
}

template <Form form, int Blocks>
__device__ __forceinline__ void load_matrix(Stage& stage, const CUtensorMap& matrices,
                                            uint64_t* barrier, const Work& work, const Tile& tile,
                                            int k, int block) {
  const int width = work.arguments.width;
  const int first = tile.expert * width * matrices_of<form> + tile.column * columns_of<form>;
  const int second = first + (form == Form::product ? half_columns : width);
  load_halves<Blocks>(stage.matrix, matrices, barrier, k * tile_depth, first, second, half_columns,
                      tile.common == Common::matrix, block);
}

// Of one thread: rows as they lie.
template <Form form, int Blocks>
__device__ __forceinline__ void load_tiles(SharedMemory& shared, const CUtensorMap& in,
                                           const CUtensorMap& matrices, const Work& work,
                                           int block) {
  ExpertTiles<Blocks> tiles = tiles_of<Blocks>(work, block);
  TileNumbers<Blocks> numbers(shared.queue, work.arguments.drawn, block);
  Turn turn;
  numbers.feed();
  while (tiles.find(numbers.template take<Taker::thread>(/*feeds=*/true))) {
    numbers.feed();
    for (int k = 0; k < work.steps; ++k, turn.next()) {
      wait_for(&shared.empty[turn.stage], turn.parity ^ 1);
      Stage& stage = shared.stage[turn.stage];
      uint64_t* const barrier = &shared.full[turn.stage];
      arrive_expecting(barrier, sizeof(Stage));
      load_halves<Blocks>(stage.in, in, barrier, k * tile_depth, tiles.row, tiles.row + group_rows,
                          group_rows, tiles.common == Common::rows, block);
      load_matrix<form, Blocks>(stage, matrices, barrier, work, tiles, k, block);
    }
  }
}

// Of a warpgroup: rows from where `order` says. Copies of rows are not counted by the barrier, so
// each warp arrives there when its part of a stage has come, `behind` stages later.
template <Form form, int Blocks>
__device__ __forceinline__ void gather_tiles(SharedMemory& shared, const CUtensorMap& matrices,
                                             const Work& work, int block) {
  constexpr int behind = 2, thread_rows = tile_rows / 16;
  const ExpertProductArguments& a = work.arguments;
  const int thread = threadIdx.x % group_threads, part = thread % 8, first_row = thread / 8;
  const auto arrive_warp = [&](int stage) {
    __syncwarp();
    if (thread % warp_size == 0) arrive(&shared.full[stage]);
  };
  ExpertTiles<Blocks> tiles = tiles_of<Blocks>(work, block);
  TileNumbers<Blocks> numbers(shared.queue, work.arguments.drawn, block);
  int next_rows[thread_rows];
  // The next tile and its rows, which are on their way while the last copies of the one before are.
  const auto look_ahead = [&] {
    if (!tiles.find(numbers.template take<Taker::warp>(/*feeds=*/thread == 0))) return false;
#pragma unroll
    for (int i = 0; i < thread_rows; ++i) {  // behind the expert's last row, that one again
      next_rows[i] = static_cast<int>(a.order[min(tiles.row + first_row + 16 * i, tiles.end - 1)]);
    }
    return true;
  };
  Turn turn, come;
  int issued = 0;
  if (thread == 0) numbers.feed();
  for (bool there = look_ahead(); there;) {
    if (thread == 0) numbers.feed();
    const Tile tile = tiles;
    const uint4* from[thread_rows];
#pragma unroll
    for (int i = 0; i < thread_rows; ++i) {
      from[i] = static_cast<const uint4*>(a.in) +
                int64_t{work.choices.quotient(next_rows[i])} * (a.depth / 8) + part;
    }
    for (int k = 0; k < work.steps; ++k, turn.next()) {
      wait_for(&shared.empty[turn.stage], turn.parity ^ 1);
      Stage& stage = shared.stage[turn.stage];
      if (thread == 0) {
        uint64_t* const barrier = &shared.full[turn.stage];
        arrive_expecting(barrier, sizeof(stage.matrix));
        load_matrix<form, Blocks>(stage, matrices, barrier, work, tile, k, block);
      }
      const bool inside = k * tile_depth + part * 8 < a.depth;
      const uint32_t to = shared_address(stage.in) + swizzled(first_row, part);
#pragma unroll
      for (int i = 0; i < thread_rows; ++i) {
        copy_part(to + 16 * i * swizzled_bytes, from[i] + (inside ? k * (tile_depth / 8) : 0),
                  inside);
      }
      close_copies();
      if (++issued > behind) {
        await_copies<behind>();
        arrive_warp(come.stage);
        come.next();
      }
      if (k == max(0, work.steps - behind)) there = look_ahead();
    }
  }
  await_copies<0>();
  for (issued = min(issued, behind); issued > 0; --issued, come.next()) arrive_warp(come.stage);
}

// Rounds where the operators one by one would.
__device__ __forceinline__ uint32_t activated(const float (&d)[128], int at) {
  const uint32_t gate = pair_of(d[at], d[at + 1]), up = pair_of(d[at + 64], d[at + 65]);
  const uint32_t s =
      pair_of(silu(first_of(gate), __nv_bfloat16()), silu(second_of(gate), __nv_bfloat16()));
  return pair_of(first_of(s) * first_of(up), second_of(s) * second_of(up));
}

// Stores a warp's 16 rows of a tile by way of shared memory, so that a row's neighbours go
// together.
template <Form form>
__device__ __forceinline__ void store_rows(const float (&d)[128], uint8_t* shared,
                                           const ExpertProductArguments& a, int row, int end,
                                           int column) {
  const int lane = threadIdx.x % warp_size, part = lane % 8 * 8;
  __nv_bfloat16* to[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int own = row + i * 4 + lane / 8;
    const bool ordered = form == Form::product && a.order != nullptr && own < end;
    to[i] = static_cast<__nv_bfloat16*>(a.out) + (ordered ? a.order[own] : own) * a.width + column +
            part;
  }
#pragma unroll
  for (int piece = 0; piece < columns_of<form> / out_columns; ++piece) {
    __syncwarp();
#pragma unroll
    for (int j = 0; j < out_columns / 8; ++j) {
      const int at = piece * (out_columns / 2) + j * 4;
      uint8_t* const near = shared + lane / 4 * out_stride + j * access_bytes + lane % 4 * 4;
      uint32_t* const upper = reinterpret_cast<uint32_t*>(near);
      uint32_t* const lower = reinterpret_cast<uint32_t*>(near + 8 * out_stride);
      if constexpr (form == Form::product) {
        *upper = pair_of(d[at], d[at + 1]);
        *lower = pair_of(d[at + 2], d[at + 3]);
      } else {
        *upper = activated(d, at);
        *lower = activated(d, at + 2);
      }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int local = i * 4 + lane / 8;
      if (row + local >= end || column + piece * out_columns + part >= a.width) continue;
      *reinterpret_cast<uint4*>(to[i] + piece * out_columns) =
          *reinterpret_cast<const uint4*>(shared + local * out_stride + part * 2);
    }
  }
}

// Of the warpgroups that multiply.
template <Form form, int Blocks>
__device__ __forceinline__ void multiply_tiles(SharedMemory& shared, const Work& work, int block) {
  const int warp = threadIdx.x / warp_size, lane = threadIdx.x % warp_size;
  const int group = threadIdx.x / group_threads;
  const auto release = [&](int stage) {
    if constexpr (Blocks == 1) {
      if (lane == 0) arrive(&shared.empty[stage]);
    } else {
      if (lane < Blocks) arrive_at(&shared.empty[stage], lane);
    }
  };
  ExpertTiles<Blocks> tiles = tiles_of<Blocks>(work, block);
  TileNumbers<Blocks> numbers(shared.queue, work.arguments.drawn, block);
  Turn turn;
  while (tiles.find(numbers.template take<Taker::warp>(/*feeds=*/false))) {
    if (!tiles.has(group * group_rows)) {
      for (int k = 0; k < work.steps; ++k, turn.next()) {
        wait_for(&shared.full[turn.stage], turn.parity);
        release(turn.stage);
      }
      continue;
    }
    float d[128];
    int before = turn.stage;
    for (int k = 0; k < work.steps; ++k, turn.next()) {
      wait_for(&shared.full[turn.stage], turn.parity);
      const Stage& stage = shared.stage[turn.stage];
      const uint64_t in = matrix_descriptor(stage.in + group * group_rows * tile_depth);
      const uint64_t matrix = matrix_descriptor(stage.matrix);
      open_products();
#pragma unroll
      for (int i = 0; i < tile_depth / step_depth; ++i) {
        multiply(d, in + 2 * i, matrix + 2 * i, k > 0 || i > 0);
      }
      close_products();
      if (k > 0) {
        await_products<1>();
        release(before);
      }
      before = turn.stage;
    }
    await_products<0>();
    release(before);
    store_rows<form>(d, shared.out[warp], work.arguments, tiles.row + warp * warp_rows, tiles.end,
                     tiles.column * columns_of<form>);
  }
}

template <Form form, int Blocks>
__global__ void __launch_bounds__(block_threads, 1)
    expert_product_kernel(const __grid_constant__ CUtensorMap in,
                          const __grid_constant__ CUtensorMap matrices,
                          const __grid_constant__ Work work) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) uint8_t memory[];
  SharedMemory& shared = *reinterpret_cast<SharedMemory*>(memory);
  constexpr bool gathers = form == Form::gathered_swiglu;
  const int block = blockIdx.x % Blocks;
  if (threadIdx.x == 0) {
    for (int s = 0; s < stages; ++s) {
      init_barrier(&shared.full[s], gathers ? 1 + group_threads / warp_size : 1);
      init_barrier(&shared.empty[s], multiplying_warps * Blocks);
    }
    init_queue<Blocks>(shared.queue, multiplying_warps + (gathers ? group_threads / warp_size : 1),
                       block);
  }
  publish_barriers<Blocks>();
  if (threadIdx.x < multiplying_warps * warp_size) {
    grow_registers<216>();
    multiply_tiles<form, Blocks>(shared, work, block);
  } else {
    shrink_registers<72>();
    if constexpr (gathers) {
      gather_tiles<form, Blocks>(shared, matrices, work, block);
    } else if (threadIdx.x == multiplying_warps * warp_size) {
      load_tiles<form, Blocks>(shared, in, matrices, work, block);
    }
  }
  // A block of a cluster stays until the other has brought it all and heard of all arrivals.
  if constexpr (Blocks > 1) await_cluster();
#else
  __trap();
#endif
}

PFN_cuTensorMapEncodeTiled_v12000 find_encode() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result;
  check_call(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                              cudaEnableDefault, &result),
             "cudaGetDriverEntryPointByVersion");
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(found);
}

// Boxes of a dense matrix; what lies outside of it reads as zeros.
CUtensorMap map_of(const void* data, int64_t rows, int depth, int box_rows) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encode = find_encode();
  const cuuint64_t sizes[] = {static_cast<cuuint64_t>(depth), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[] = {static_cast<cuuint64_t>(depth) * sizeof(__nv_bfloat16)};
  const cuuint32_t box[] = {tile_depth, static_cast<cuuint32_t>(box_rows)}, steps[] = {1, 1};
  CUtensorMap map;
  const CUresult status =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(data), sizes, strides,
             box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  check_call(status == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue,
             "cuTensorMapEncodeTiled");
  return map;
}

template <Form form, int Blocks>
void launch_with(const ExpertProductArguments& a, cudaStream_t stream) {
  const auto kernel = expert_product_kernel<form, Blocks>;
  check_call(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  sizeof(SharedMemory)),
             "cudaFuncSetAttribute");
  const Work work{.arguments = a,
                  .steps = static_cast<int>(divide_up(a.depth, tile_depth)),
                  .columns = static_cast<int>(divide_up(a.width, columns_of<form>)),
                  .choices = Divisor(a.choices)};
  cudaLaunchAttribute cluster{.id = cudaLaunchAttributeClusterDimension};
  cluster.val.clusterDim = {Blocks, 1, 1};
  const cudaLaunchConfig_t config{
      .gridDim = static_cast<unsigned>(a.multiprocessors / Blocks * Blocks),
      .blockDim = block_threads,
      .dynamicSmemBytes = sizeof(SharedMemory),
      .stream = stream,
      .attrs = &cluster,
      .numAttrs = 1};
  const int64_t matrix_rows = int64_t{a.experts} * a.width * matrices_of<form>;
  check_call(
      cudaLaunchKernelEx(&config, kernel, map_of(a.in, a.rows / a.choices, a.depth, group_rows),
                         map_of(a.matrices, matrix_rows, a.depth, half_columns), work),
      "cudaLaunchKernelEx");
}

// Two blocks together multiply a tile in 0.85 of the time that they take alone.
template <Form form>
void launch(const ExpertProductArguments& a, cudaStream_t stream) {
  const auto turns = [&](int blocks) {
    const int64_t columns = divide_up(a.width, columns_of<form>);
    return divide_up(count_tiles(a.rows, a.experts, columns, blocks), a.multiprocessors / blocks);
  };
  0.85 * turns(2) <= turns(1) ? launch_with<form, 2>(a, stream) : launch_with<form, 1>(a, stream);
}

}  // namespace

bool has_expert_product_kernels() {
  int device = 0, major = 0, minor = 0;
  check_call(cudaGetDevice(&device), "cudaGetDevice");
  check_call(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
             "cudaDeviceGetAttribute");
  check_call(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
             "cudaDeviceGetAttribute");
  return major == 9 && minor == 0;
}

void launch_expert_product(const ExpertProductArguments& arguments, cudaStream_t stream) {
  launch<Form::product>(arguments, stream);
}

void launch_expert_swiglu(const ExpertProductArguments& arguments, cudaStream_t stream) {
  if (arguments.order != nullptr) {
    launch<Form::gathered_swiglu>(arguments, stream);
  } else {
    launch<Form::swiglu>(arguments, stream);
  }
}

}  // namespace farskip::cuda
