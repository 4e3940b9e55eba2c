#include <cooperative_groups.h>

#include <algorithm>
#include <array>

#include "farskip/base/error.h"
#include "farskip/cuda/choose.cuh"
#include "farskip/cuda/routing_kernels.h"

namespace farskip::cuda {
namespace {

constexpr int block_threads = 512;
constexpr int block_warps = block_threads / warp_size;
constexpr int64_t least_tokens = 32;  // of a block

// A block's share of the tokens, and of their slots.
struct Share {
  int64_t first, last;
};

__device__ __forceinline__ Share block_share(int64_t tokens) {
  const int64_t each = (tokens + gridDim.x - 1) / gridDim.x;
  const int64_t first = min(tokens, blockIdx.x * each);
  return {first, min(tokens, first + each)};
}

// Tables in shared memory, [experts] each but `starts` [warps][experts].
struct PlanTables {
  int *starts, *position, *total, *before;
};

__device__ __forceinline__ PlanTables plan_tables(int* shared, int experts) {
  int* const position = shared + block_warps * experts;
  return {shared, position, position + experts, position + 2 * experts};
}

// Calls use(slot, position, peers) for this warp's part of the block's slots, 32 at a time in
// ascending order; peers: the lanes with the same position, 0 beyond the last slot.
template <typename Use>
__device__ __forceinline__ void for_slots(const PlanArguments& a, const PlanTables& tables,
                                          Share slots, Use use) {
  const int64_t warp = threadIdx.x / warp_size;
  constexpr int64_t step = block_warps * warp_size;
  const int64_t each = (slots.last - slots.first + step - 1) / step * warp_size;
  const int64_t first = slots.first + warp * each, last = min(slots.last, first + each);
  for (int64_t base = first; base < last; base += warp_size) {
    const int64_t slot = base + lane_index();
    const int position = slot < last ? tables.position[a.experts[slot]] : -1;
    const unsigned same = __match_any_sync(full_warp, position);
    use(slot, position, position >= 0 ? same : 0u);
    __syncwarp();
  }
}

// starts[w][p]: rows of position p in this block before warp w; the block's sums to global memory.
__device__ __forceinline__ void count_slots(const PlanArguments& a, const PlanTables& tables,
                                            Share slots) {
  for (int i = threadIdx.x; i < block_warps * a.expert_count; i += block_threads) {
    tables.starts[i] = 0;
  }
  for (int e = threadIdx.x; e < a.expert_count; e += block_threads) {
    tables.position[e] = static_cast<int>(a.position_of_expert[e]);
    tables.total[e] = tables.before[e] = 0;
  }
  __syncthreads();
  int* const mine = tables.starts + threadIdx.x / warp_size * a.expert_count;
  for_slots(a, tables, slots, [&](int64_t, int position, unsigned peers) {
    const bool first = peers != 0 && (peers & lanes_below()) == 0;
    if (first) mine[position] += __popc(peers);
  });
  __syncthreads();
  for (int p = threadIdx.x; p < a.expert_count; p += block_threads) {
    int sum = 0;
    for (int warp = 0; warp < block_warps; ++warp) {
      int& start = tables.starts[warp * a.expert_count + p];
      const int count = start;
      start = sum;
      sum += count;
    }
    a.block_counts[int64_t{blockIdx.x} * a.expert_count + p] = sum;
  }
}

// total[p]: rows of position p; before[p]: those of earlier blocks. Every block reads all blocks'
// counts, several threads to a position where positions are few.
__device__ __forceinline__ void gather_counts(const PlanArguments& a, const PlanTables& tables) {
  const int experts = a.expert_count, blocks = static_cast<int>(gridDim.x);
  const int teams = max(1, block_threads / experts);
  for (int i = threadIdx.x; i < experts * teams; i += block_threads) {
    const int p = i % experts;
    int total = 0, before = 0;
#pragma unroll 8
    for (int block = i / experts; block < blocks; block += teams) {
      const int count = __ldcg(a.block_counts + int64_t{block} * experts + p);
      total += count;
      before += block < static_cast<int>(blockIdx.x) ? count : 0;
    }
    atomicAdd(tables.total + p, total);
    atomicAdd(tables.before + p, before);
  }
  __syncthreads();
}

// before[p] becomes the first row of position p in this block. By the first warp.
__device__ __forceinline__ void scan_positions(const PlanArguments& a, const PlanTables& tables) {
  if (threadIdx.x >= warp_size) return;
  int running = 0;
  for (int base = 0; base < a.expert_count; base += warp_size) {
    const int p = base + lane_index();
    const int count = p < a.expert_count ? tables.total[p] : 0;
    int sum = count;
#pragma unroll
    for (int distance = 1; distance < warp_size; distance *= 2) {
      const int other = __shfl_up_sync(full_warp, sum, distance);
      if (lane_index() >= distance) sum += other;
    }
    if (p < a.expert_count) {
      tables.before[p] += running + sum - count;
      if (blockIdx.x == 0) a.counts[p] = count;
    }
    running += __shfl_sync(full_warp, sum, warp_size - 1);
  }
}

__device__ __forceinline__ void place_slots(const PlanArguments& a, const PlanTables& tables,
                                            Share slots) {
  int* const mine = tables.starts + threadIdx.x / warp_size * a.expert_count;
  for_slots(a, tables, slots, [&](int64_t slot, int position, unsigned peers) {
    if (peers != 0) {
      const int64_t row = tables.before[position] + mine[position] + __popc(peers & lanes_below());
      a.order[row] = slot;
      a.inverse[slot] = row;
    }
    __syncwarp();
    if (peers != 0 && (peers & lanes_below()) == 0) mine[position] += __popc(peers);
  });
}

// Counts are known only when all blocks have counted: the one place where the grid waits for
// itself.
__device__ __forceinline__ void plan_block(const PlanArguments& a, Share tokens, int top_k,
                                           int* shared) {
  const PlanTables tables = plan_tables(shared, a.expert_count);
  const Share slots{tokens.first * top_k, tokens.last * top_k};
  count_slots(a, tables, slots);
  if (gridDim.x > 1) {
    cooperative_groups::this_grid().sync();
  } else {
    __syncthreads();
  }
  gather_counts(a, tables);
  scan_positions(a, tables);
  __syncthreads();
  place_slots(a, tables, slots);
}

template <typename Logit, int PerLane>
__device__ __forceinline__ void choose_block(const ChooseArguments& a, const Divisor& group_size,
                                             Share tokens) {
  __shared__ float scores[block_warps][warp_size];
  const int warp = threadIdx.x / warp_size;
  for (int64_t token = tokens.first + warp; token < tokens.last; token += block_warps) {
    choose_token<Logit, PerLane>(a, group_size, token, scores[warp]);
  }
}

template <typename Logit, int PerLane>
__global__ void __launch_bounds__(block_threads, 1)
    choose_kernel(const __grid_constant__ ChooseArguments a, Divisor group_size, int64_t tokens) {
  choose_block<Logit, PerLane>(a, group_size, block_share(tokens));
}

__global__ void __launch_bounds__(block_threads, 1)
    plan_kernel(const __grid_constant__ PlanArguments a, int64_t tokens, int top_k) {
  extern __shared__ int shared[];
  plan_block(a, block_share(tokens), top_k, shared);
}

template <typename Logit, int PerLane>
__global__ void __launch_bounds__(block_threads, 1)
    choose_and_plan_kernel(const __grid_constant__ ChooseArguments choose,
                           const __grid_constant__ PlanArguments plan, Divisor group_size,
                           int64_t tokens) {
  extern __shared__ int shared[];
  const Share share = block_share(tokens);
  choose_block<Logit, PerLane>(choose, group_size, share);
  __syncthreads();
  plan_block(plan, share, choose.rule.top_k, shared);
}

size_t plan_shared_bytes(int experts) { return sizeof(int) * experts * (block_warps + 3); }

// All blocks of a grid that waits for itself have to be on the device together.
template <typename... Parameters, typename... Arguments>
void launch_together(void (*kernel)(Parameters...), int blocks, size_t shared, cudaStream_t stream,
                     Arguments... arguments) {
  std::array<void*, sizeof...(Arguments)> addresses = {&arguments...};
  check_call(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(kernel), dim3(blocks),
                                         dim3(block_threads), addresses.data(), shared, stream),
             "cudaLaunchCooperativeKernel");
}

template <typename Logit, int PerLane>
void choose(const ChooseArguments& a, const PlanArguments* plan, int64_t tokens,
            cudaStream_t stream) {
  const Divisor group_size(static_cast<uint32_t>(a.rule.experts / a.rule.groups));
  const int blocks = plan_blocks(tokens);
  if (plan == nullptr) {
    choose_kernel<Logit, PerLane><<<blocks, block_threads, 0, stream>>>(a, group_size, tokens);
    return;
  }
  const auto kernel = choose_and_plan_kernel<Logit, PerLane>;
  const size_t shared = plan_shared_bytes(plan->expert_count);
  if (blocks > 1)
    return launch_together(kernel, blocks, shared, stream, a, *plan, group_size, tokens);
  kernel<<<1, block_threads, shared, stream>>>(a, *plan, group_size, tokens);
}

template <typename Logit>
void choose(const ChooseArguments& a, const PlanArguments* plan, int64_t tokens,
            cudaStream_t stream) {
  const int experts = a.rule.experts;
  if (experts <= 32) return choose<Logit, 1>(a, plan, tokens, stream);
  if (experts <= 64) return choose<Logit, 2>(a, plan, tokens, stream);
  if (experts <= 128) return choose<Logit, 4>(a, plan, tokens, stream);
  if (experts <= 256) return choose<Logit, 8>(a, plan, tokens, stream);
  choose<Logit, 16>(a, plan, tokens, stream);
}

void choose(Element logits, const ChooseArguments& a, const PlanArguments* plan, int64_t tokens,
            cudaStream_t stream) {
  if (logits == Element::f32) {
    choose<float>(a, plan, tokens, stream);
  } else {
    choose<__nv_bfloat16>(a, plan, tokens, stream);
  }
  check_launch("choose_experts");
}

}  // namespace

int plan_blocks(int64_t tokens) {
  return static_cast<int>(std::clamp<int64_t>(tokens / least_tokens, 1, multiprocessors()));
}

void launch_choose(Element logits, const ChooseArguments& arguments, int64_t tokens,
                   cudaStream_t stream) {
  choose(logits, arguments, nullptr, tokens, stream);
}

void launch_plan(const PlanArguments& arguments, int64_t tokens, int top_k, cudaStream_t stream) {
  const int blocks = plan_blocks(tokens);
  const size_t shared = plan_shared_bytes(arguments.expert_count);
  if (blocks > 1) {
    launch_together(plan_kernel, blocks, shared, stream, arguments, tokens, top_k);
  } else {
    plan_kernel<<<1, block_threads, shared, stream>>>(arguments, tokens, top_k);
  }
  check_launch("make_plan");
}

void launch_choose_and_plan(Element logits, const ChooseArguments& choose_arguments,
                            const PlanArguments& plan, int64_t tokens, cudaStream_t stream) {
  choose(logits, choose_arguments, &plan, tokens, stream);
}

}  // namespace farskip::cuda
