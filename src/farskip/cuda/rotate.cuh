#pragma once

#include "farskip/cuda/pack.cuh"

// What the rope kernels share: a thread's item is two packs of a head, `second` half of the rotated
// (or copied) elements behind `first`, so that neighbouring threads touch neighbouring packs and
// each item holds whole pairs in either pairing.
namespace farskip::cuda {

struct Item {
  int first, second;              // element
  int first_count, second_count;  // from there to the end; none: 0 or less
};

template <typename T>
__host__ __device__ __forceinline__ int items_of(int elements) {
  return (elements + 2 * pack_size<T> - 1) / (2 * pack_size<T>);
}

// Item `index` of the elements [begin, end).
template <typename T>
__device__ __forceinline__ Item plain_item(int begin, int end, int index) {
  const int first = begin + index * pack_size<T>;
  const int second = first + items_of<T>(end - begin) * pack_size<T>;
  return {first, second, end - first, end - second};
}

// Item `index` of 2 * pairs elements that rotate.
template <typename T>
__device__ __forceinline__ Item rotated_item(int pairs, int index, bool interleaved) {
  Item item = plain_item<T>(0, 2 * pairs, index);
  if (interleaved) return item;
  item.second = pairs + item.first;
  item.first_count = item.second_count = pairs - item.first;
  return item;
}

template <typename T>
struct ItemPacks {
  Pack<T> first, second;
};

template <typename T, bool Aligned>
__device__ __forceinline__ ItemPacks<T> load_item(const T* head, const Item& item) {
  ItemPacks<T> packs{};
  if (item.first_count > 0) {
    packs.first = load_pack<T, Aligned>(head + item.first, item.first_count);
  }
  if (item.second_count > 0) {
    packs.second = load_pack<T, Aligned>(head + item.second, item.second_count);
  }
  return packs;
}

template <typename T, bool Aligned>
__device__ __forceinline__ void store_item(T* head, const Item& item, const ItemPacks<T>& packs) {
  if (item.first_count > 0) {
    store_pack<T, Aligned>(head + item.first, packs.first, item.first_count);
  }
  if (item.second_count > 0) {
    store_pack<T, Aligned>(head + item.second, packs.second, item.second_count);
  }
}

template <int Count, bool Aligned>
__device__ __forceinline__ void load_floats(float (&values)[Count], const float* from, int count) {
  if constexpr (Aligned && Count % 4 == 0) {
#pragma unroll
    for (int i = 0; i < Count; i += 4) {
      *reinterpret_cast<float4*>(values + i) = *reinterpret_cast<const float4*>(from + i);
    }
  } else {
#pragma unroll
    for (int i = 0; i < Count; ++i) values[i] = i < count ? from[i] : 0.0f;
  }
}

// Products are rounded before they are added, as on the CPU.
__device__ __forceinline__ void rotate_pair(float& first, float& second, float cos, float sin) {
  const float x = first, y = second;
  first = __fsub_rn(__fmul_rn(x, cos), __fmul_rn(y, sin));
  second = __fadd_rn(__fmul_rn(y, cos), __fmul_rn(x, sin));
}

// The pairs that lie beside each other in one pack, which begins at `element`.
template <typename T, bool Aligned>
__device__ __forceinline__ void rotate_within(Pack<T>& pack, const float* cos, const float* sin,
                                              int pairs, int element) {
  constexpr int count = pack_size<T> / 2;
  float values[pack_size<T>], c[count], s[count];
  unpack(pack, values);
  load_floats<count, Aligned>(c, cos + element / 2, pairs - element / 2);
  load_floats<count, Aligned>(s, sin + element / 2, pairs - element / 2);
#pragma unroll
  for (int i = 0; i < count; ++i) rotate_pair(values[2 * i], values[2 * i + 1], c[i], s[i]);
  repack(pack, values);
}

// `cos` and `sin` are those of the token.
template <typename T, bool Aligned>
__device__ __forceinline__ void rotate_item(ItemPacks<T>& packs, const Item& item, const float* cos,
                                            const float* sin, int pairs, bool interleaved) {
  if (interleaved) {
    if (item.first_count > 0) {
      rotate_within<T, Aligned>(packs.first, cos, sin, pairs, item.first);
    }
    if (item.second_count > 0) {
      rotate_within<T, Aligned>(packs.second, cos, sin, pairs, item.second);
    }
    return;
  }
  if (item.first_count <= 0) return;
  float first[pack_size<T>], second[pack_size<T>], c[pack_size<T>], s[pack_size<T>];
  unpack(packs.first, first);
  unpack(packs.second, second);
  load_floats<pack_size<T>, Aligned>(c, cos + item.first, item.first_count);
  load_floats<pack_size<T>, Aligned>(s, sin + item.first, item.first_count);
#pragma unroll
  for (int i = 0; i < pack_size<T>; ++i) rotate_pair(first[i], second[i], c[i], s[i]);
  repack(packs.first, first);
  repack(packs.second, second);
}

}  // namespace farskip::cuda
