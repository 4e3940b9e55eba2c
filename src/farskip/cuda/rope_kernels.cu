#include "farskip/cuda/divide.cuh"
#include "farskip/cuda/rope_kernels.h"
#include "farskip/cuda/rotate.cuh"

namespace farskip::cuda {
namespace {

constexpr int block_threads = 256;
constexpr int heads_together = 4;
constexpr int most_items = 3;  // of a lane, for heads of more items than a warp has lanes

template <typename T>
__device__ __forceinline__ float sum_of_squares(const Pack<T>& pack) {
  float values[pack_size<T>], sum = 0.0f;
  unpack(pack, values);
#pragma unroll
  for (int i = 0; i < pack_size<T>; ++i) sum += values[i] * values[i];
  return sum;
}

// Rounds before and after the weight, as the models do.
template <typename T>
__device__ __forceinline__ void norm_pack(Pack<T>& pack, float scale, const Pack<T>& weight) {
  float values[pack_size<T>], factors[pack_size<T>];
  unpack(pack, values);
  unpack(weight, factors);
#pragma unroll
  for (int i = 0; i < pack_size<T>; ++i) values[i] *= scale;
  repack(pack, values);
  unpack(pack, values);
#pragma unroll
  for (int i = 0; i < pack_size<T>; ++i) values[i] *= factors[i];
  repack(pack, values);
}

template <typename T>
__device__ __forceinline__ T* head_at(const Heads& heads, int64_t token, int head) {
  return static_cast<T*>(heads.data) + token * heads.token_stride + head * heads.head_stride;
}

// `lanes` lanes (a power of two) share a head; each holds items lane, lane + lanes, ...: first
// those that rotate, then, where there is a norm, the rest of the head.
template <typename T, int Items, bool Aligned>
__global__ void __launch_bounds__(block_threads)
    grouped_rope_kernel(const __grid_constant__ GroupedRopeArguments a, uint32_t head_count,
                        Divisor token_heads, int lanes) {
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const uint32_t head = (blockIdx.x * block_threads + threadIdx.x) / lanes;
  const bool there = head < head_count;
  const uint32_t token = there ? token_heads.quotient(head) : 0;
  const int of_token = there ? static_cast<int>(head - token * token_heads.divisor()) : 0;
  const bool is_q = of_token < a.q.count;
  const Heads& heads = is_q ? a.q : a.k;
  T* const data = head_at<T>(heads, token, of_token - (is_q ? 0 : a.q.count));
  const T* const norm = static_cast<const T*>(heads.norm);
  const int rotated = items_of<T>(2 * a.pairs);
  const int items = !there            ? 0
                    : norm == nullptr ? rotated
                                      : rotated + items_of<T>(a.size - 2 * a.pairs);
  const auto item_at = [&](int index) {
    return index < rotated ? rotated_item<T>(a.pairs, index, a.interleaved)
                           : plain_item<T>(2 * a.pairs, a.size, index - rotated);
  };
  ItemPacks<T> packs[Items];
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < Items; ++i) {
    if (lane + i * lanes < items) packs[i] = load_item<T, Aligned>(data, item_at(lane + i * lanes));
  }
#pragma unroll
  for (int i = 0; i < Items; ++i) {
    if (lane + i * lanes >= items) continue;
    squares += sum_of_squares(packs[i].first) + sum_of_squares(packs[i].second);
  }
  for (int mask = lanes / 2; mask > 0; mask /= 2) {
    squares += __shfl_xor_sync(full_warp, squares, mask);
  }
  const float scale = 1.0f / sqrtf(squares / static_cast<float>(a.size) + a.eps);
#pragma unroll
  for (int i = 0; i < Items; ++i) {
    const int index = lane + i * lanes;
    if (index >= items) continue;
    const Item item = item_at(index);
    if (norm != nullptr) {
      const ItemPacks<T> weight = load_item<T, Aligned>(norm, item);
      norm_pack(packs[i].first, scale, weight.first);
      norm_pack(packs[i].second, scale, weight.second);
    }
    if (index < rotated) {
      const int64_t angles = int64_t{token} * a.pairs;
      rotate_item<T, Aligned>(packs[i], item, a.cos + angles, a.sin + angles, a.pairs,
                              a.interleaved);
    }
    store_item<T, Aligned>(data, item, packs[i]);
  }
}

// A thread has one item of several heads of a token: angles and k's part, which they share, are
// read once, and loads of all of them are in flight.
template <typename T, bool Aligned>
__global__ void __launch_bounds__(block_threads)
    latent_rope_kernel(const __grid_constant__ LatentRopeArguments a, uint32_t item_count,
                       Divisor token_groups, Divisor head_items) {
  const uint32_t index = blockIdx.x * block_threads + threadIdx.x;
  if (index >= item_count) return;
  const uint32_t group = head_items.quotient(index);
  const int64_t token = token_groups.quotient(group);
  const int first = static_cast<int>(group - token * token_groups.divisor()) * heads_together;
  const int count = a.q.count - first;
  const Item item = rotated_item<T>(a.pairs, static_cast<int>(index - group * head_items.divisor()),
                                    a.interleaved);
  const float* const cos = a.cos + token * a.pairs;
  const float* const sin = a.sin + token * a.pairs;
  ItemPacks<T> q[heads_together];
#pragma unroll
  for (int j = 0; j < heads_together; ++j) {
    if (j < count) q[j] = load_item<T, Aligned>(head_at<T>(a.q, token, first + j), item);
  }
  const T* const shared = static_cast<const T*>(a.k_rope) + token * a.rope_token_stride;
  ItemPacks<T> k = load_item<T, Aligned>(shared, item);
  rotate_item<T, Aligned>(k, item, cos, sin, a.pairs, a.interleaved);
#pragma unroll
  for (int j = 0; j < heads_together; ++j) {
    if (j >= count) continue;
    store_item<T, Aligned>(head_at<T>(a.k, token, first + j), item, k);
    rotate_item<T, Aligned>(q[j], item, cos, sin, a.pairs, a.interleaved);
    store_item<T, Aligned>(head_at<T>(a.q, token, first + j), item, q[j]);
  }
}

template <typename T>
bool heads_aligned(const Heads& heads) {
  return is_aligned(heads.data) && is_aligned(heads.norm) &&
         (heads.token_stride | heads.head_stride) % pack_size<T> == 0;
}

bool tables_aligned(const float* cos, const float* sin) {
  return is_aligned(cos) && is_aligned(sin);
}

template <typename T>
void grouped_rope(const GroupedRopeArguments& a, cudaStream_t stream) {
  const int rest = a.q.norm != nullptr || a.k.norm != nullptr ? a.size - 2 * a.pairs : 0;
  const int items = items_of<T>(2 * a.pairs) + items_of<T>(rest);
  int lanes = 1;
  while (lanes < items && lanes < warp_size) lanes *= 2;
  const bool aligned = a.pairs % pack_size<T> == 0 && a.size % pack_size<T> == 0 &&
                       heads_aligned<T>(a.q) && heads_aligned<T>(a.k) &&
                       tables_aligned(a.cos, a.sin);
  const int heads = a.q.count + a.k.count;
  const int64_t head_count = a.tokens * heads;
  const auto kernel =
      items <= lanes
          ? (aligned ? grouped_rope_kernel<T, 1, true> : grouped_rope_kernel<T, 1, false>)
          : (aligned ? grouped_rope_kernel<T, most_items, true>
                     : grouped_rope_kernel<T, most_items, false>);
  const int64_t blocks = divide_up(head_count * lanes, block_threads);
  kernel<<<static_cast<unsigned>(blocks), block_threads, 0, stream>>>(
      a, static_cast<uint32_t>(head_count), Divisor(heads), lanes);
}

template <typename T>
void latent_rope(const LatentRopeArguments& a, cudaStream_t stream) {
  const bool aligned = (a.rope_token_stride | a.pairs) % pack_size<T> == 0 &&
                       is_aligned(a.k_rope) && heads_aligned<T>(a.q) && heads_aligned<T>(a.k) &&
                       tables_aligned(a.cos, a.sin);
  const int head_items = items_of<T>(2 * a.pairs);
  const int64_t groups = divide_up(a.q.count, heads_together);
  const int64_t items = a.tokens * groups * head_items;
  const auto kernel = aligned ? latent_rope_kernel<T, true> : latent_rope_kernel<T, false>;
  kernel<<<static_cast<unsigned>(divide_up(items, block_threads)), block_threads, 0, stream>>>(
      a, static_cast<uint32_t>(items), Divisor(groups), Divisor(head_items));
}

__global__ void __launch_bounds__(block_threads)
    rope_table_kernel(const __grid_constant__ RopeTableArguments a) {
  const int64_t i = int64_t{blockIdx.x} * block_threads + threadIdx.x;
  if (i >= a.tokens * a.pairs) return;
  const float angle =
      static_cast<float>(a.positions[i / a.pairs]) * a.radians[static_cast<int>(i % a.pairs)];
  a.cos[i] = cosf(angle) * a.magnitude;
  a.sin[i] = sinf(angle) * a.magnitude;
}

}  // namespace

void launch_grouped_rope(Element element, const GroupedRopeArguments& arguments,
                         cudaStream_t stream) {
  if (element == Element::f32) {
    grouped_rope<float>(arguments, stream);
  } else {
    grouped_rope<__nv_bfloat16>(arguments, stream);
  }
  check_launch("grouped_rope");
}

void launch_latent_rope(Element element, const LatentRopeArguments& arguments,
                        cudaStream_t stream) {
  if (element == Element::f32) {
    latent_rope<float>(arguments, stream);
  } else {
    latent_rope<__nv_bfloat16>(arguments, stream);
  }
  check_launch("latent_rope");
}

void launch_rope_table(const RopeTableArguments& arguments, cudaStream_t stream) {
  const int64_t blocks = divide_up(arguments.tokens * arguments.pairs, block_threads);
  rope_table_kernel<<<static_cast<unsigned>(blocks), block_threads, 0, stream>>>(arguments);
  check_launch("rope_table");
}

}  // namespace farskip::cuda
