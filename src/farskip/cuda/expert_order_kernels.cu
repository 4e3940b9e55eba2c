#include <algorithm>

#include "farskip/cuda/expert_order_kernels.h"
#include "farskip/cuda/launch.h"

namespace farskip::cuda {
namespace {

constexpr int threads = 256, warp_size = 32, warps = threads / warp_size;
constexpr int rows_per_block = 2048;

// Exclusive prefix sums of value(0) to value(count - 1), each handed to store(index, sum).
template <typename Value, typename Store>
__device__ void scan(int count, const Value& value, const Store& store) {
  __shared__ int sums[warps];
  const int each = (count + threads - 1) / threads;
  const int first = min(count, static_cast<int>(threadIdx.x) * each);
  const int last = min(count, first + each);
  int own = 0;
  for (int i = first; i < last; ++i) own += value(i);
  const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
  int inclusive = own;
  for (int step = 1; step < warp_size; step *= 2) {
    const int before = __shfl_up_sync(0xffffffff, inclusive, step);
    if (lane >= step) inclusive += before;
  }
  __syncthreads();  // the sums of a scan before this one have been read
  if (lane == warp_size - 1) sums[warp] = inclusive;
  __syncthreads();
  int sum = inclusive - own;
  for (int w = 0; w < warp; ++w) sum += sums[w];
  for (int i = first; i < last; ++i) {
    store(i, sum);
    sum += value(i);
  }
}

// Every block scans the counts by itself: they are few.
__global__ void __launch_bounds__(threads) order_rows(const ExpertOrderArguments a) {
  extern __shared__ int shared[];
  const int blocks = a.ranks * a.experts;
  int* const firsts = shared;           // by rank, then expert: where the block begins
  int* const places = shared + blocks;  // likewise: where it goes
  const auto count = [&](int rank, int expert) {
    return static_cast<int>(a.counts[rank * a.stride + expert]);
  };
  scan(
      blocks, [&](int i) { return count(i / a.experts, i % a.experts); },
      [&](int i, int sum) { firsts[i] = sum; });
  scan(
      blocks, [&](int i) { return count(i % a.ranks, i / a.ranks); },
      [&](int i, int sum) { places[i % a.ranks * a.experts + i / a.ranks] = sum; });
  __syncthreads();
  if (blockIdx.x == 0) {
    const int last = (a.ranks - 1) * a.experts;
    for (int e = threadIdx.x; e < a.experts; e += threads) {
      a.ends[e] = places[last + e] + count(a.ranks - 1, e);
    }
  }
  const int total = firsts[blocks - 1] + count(a.ranks - 1, a.experts - 1);
  const int end = min(a.rows, static_cast<int>(blockIdx.x + 1) * rows_per_block);
  for (int row = blockIdx.x * rows_per_block + threadIdx.x; row < end; row += threads) {
    if (row >= total) {
      a.order[row] = a.inverse[row] = -1;
      continue;
    }
    // The last block that begins at the row or before it.
    int low = 0, high = blocks;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (firsts[middle] <= row ? low : high) = middle;
    }
    const int place = places[low] + row - firsts[low];
    a.order[place] = row;
    a.inverse[row] = place;
  }
}

}  // namespace

void launch_expert_order(const ExpertOrderArguments& arguments, cudaStream_t stream) {
  const auto blocks =
      static_cast<unsigned>(std::max<int64_t>(1, divide_up(arguments.rows, rows_per_block)));
  const size_t bytes = sizeof(int) * 2 * arguments.ranks * arguments.experts;
  order_rows<<<blocks, threads, bytes, stream>>>(arguments);
  check_launch("order_rows");
}

}  // namespace farskip::cuda
