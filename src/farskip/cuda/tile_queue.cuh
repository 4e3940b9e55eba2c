#pragma once

#include "farskip/cuda/matrix_units.cuh"
#include "farskip/cuda/pack.cuh"

// Tiles given out one by one to the clusters of a kernel whose blocks stay and go from tile to
// tile: where another kernel holds multiprocessors, a collective's say, the blocks that wait for
// them take no tiles meanwhile. One thread of each block feeds: that of a cluster's first block
// draws a number from a counter in memory while the tile before is loaded, and passes it on.
namespace farskip::cuda {

// In the shared memory of each block: a number for the tile at hand, and one for the next.
struct TileQueue {
  static constexpr int slots = 2;
  int number[slots];
  uint64_t full[slots];   // the number has come
  uint64_t empty[slots];  // of a cluster's first block: all who take have read theirs
};

// Of one thread, before barriers are published. `takers`: warps, or single threads, of a block.
template <int Blocks>
__device__ __forceinline__ void init_queue(TileQueue& queue, int takers, int block) {
  for (int s = 0; s < TileQueue::slots; ++s) {
    init_barrier(&queue.full[s], 1);
    init_barrier(&queue.empty[s], takers * Blocks);
    if (block != 0) arrive_expecting(&queue.full[s], sizeof(int));
  }
}

// Who takes: a thread alone, or all of a warp.
enum class Taker { thread, warp };

// What a thread knows of its block's queue. `drawn` counts up from 0, for all clusters.
template <int Blocks>
class TileNumbers {
 public:
  __device__ __forceinline__ TileNumbers(TileQueue& queue, int* drawn, int block)
      : queue_(queue), drawn_(drawn), block_(block) {}

  // The next number, higher than the one before. `feeds`: this thread does.
  template <Taker taker>
  __device__ __forceinline__ int take(bool feeds) {
    wait_for(&queue_.full[taken_.slot], taken_.parity);
    const int number = *static_cast<volatile int*>(&queue_.number[taken_.slot]);
    if constexpr (taker == Taker::warp) __syncwarp();
    if (taker == Taker::thread || threadIdx.x % warp_size == 0) {
      block_ == 0 ? arrive(&queue_.empty[taken_.slot]) : arrive_at(&queue_.empty[taken_.slot], 0);
    }
    if (feeds && block_ != 0) arrive_expecting(&queue_.full[taken_.slot], sizeof(int));
    taken_.next();
    return number;
  }

  // Of the thread that feeds: the first number before it takes one, then one behind each that it
  // took and that is a tile's.
  __device__ __forceinline__ void feed() {
    if (block_ != 0) return;
    wait_for(&queue_.empty[fed_.slot], fed_.parity ^ 1);
    const int number = atomicAdd(drawn_, 1);
    *static_cast<volatile int*>(&queue_.number[fed_.slot]) = number;
    arrive(&queue_.full[fed_.slot]);
    if constexpr (Blocks > 1) {
      send(&queue_.number[fed_.slot], number, &queue_.full[fed_.slot], 1);
    }
    fed_.next();
  }

 private:
  struct Turn {
    int slot = 0, parity = 0;
    __device__ __forceinline__ void next() {
      slot ^= 1;
      if (slot == 0) parity ^= 1;
    }
  };

  TileQueue& queue_;
  int* const drawn_;
  const int block_;
  Turn taken_, fed_;
};

}  // namespace farskip::cuda
