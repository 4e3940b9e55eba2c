#include "farskip/comm/ordered_sum.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <type_traits>

namespace farskip {
namespace {

using Inputs = std::span<const void* const>;

template <typename T>
struct Accumulate {
  using Type = T;
};
template <>
struct Accumulate<c10::BFloat16> {
  using Type = float;
};
template <>
struct Accumulate<c10::Half> {
  using Type = float;
};
// Unsigned, because signed overflow would be undefined.
template <>
struct Accumulate<int32_t> {
  using Type = uint32_t;
};
template <>
struct Accumulate<int64_t> {
  using Type = uint64_t;
};

constexpr int64_t kBlock = 1024;  // elements; their sums stay in the first-level cache

// Adds `count` elements from `at` on of every input.
template <typename T, typename Count>
void sum_block(Inputs inputs, int64_t at, Count count, T* result) {
  using Sum = typename Accumulate<T>::Type;
  Sum sums[kBlock];
  for (size_t r = 0; r < inputs.size(); ++r) {
    const T* const values = static_cast<const T*>(inputs[r]) + at;
    if (r == 0) {
      for (int64_t i = 0; i < count; ++i) sums[i] = static_cast<Sum>(values[i]);
    } else {
      for (int64_t i = 0; i < count; ++i) sums[i] += static_cast<Sum>(values[i]);
    }
  }
  for (int64_t i = 0; i < count; ++i) result[i] = static_cast<T>(sums[i]);
}

template <typename T>
void sum_all(Inputs inputs, int64_t count, const StoreSums& store) {
  T block[kBlock];
  for (int64_t at = 0; at < count; at += kBlock) {
    const int64_t length = std::min(kBlock, count - at);
    if (length == kBlock) {
      // A constant count lets the compiler use vector instructions at -O2.
      sum_block(inputs, at, std::integral_constant<int64_t, kBlock>(), block);
    } else {
      sum_block(inputs, at, length, block);
    }
    store(at, block, length);
  }
}

// Calls visit with a value of the C++ type of `dtype`; false for dtypes that can not be summed.
template <typename Visit>
bool visit_summable(c10::ScalarType dtype, const Visit& visit) {
  switch (dtype) {
    case c10::kFloat:
      visit(float{});
      return true;
    case c10::kDouble:
      visit(double{});
      return true;
    case c10::kBFloat16:
      visit(c10::BFloat16{});
      return true;
    case c10::kHalf:
      visit(c10::Half{});
      return true;
    case c10::kInt:
      visit(int32_t{});
      return true;
    case c10::kLong:
      visit(int64_t{});
      return true;
    default:
      return false;
  }
}

}  // namespace

bool can_sum(c10::ScalarType dtype) {
  return visit_summable(dtype, [](auto) {});
}

void ordered_sum(c10::ScalarType dtype, std::span<const void* const> inputs, int64_t count,
                 const StoreSums& store) {
  visit_summable(dtype, [&](auto value) { sum_all<decltype(value)>(inputs, count, store); });
}

}  // namespace farskip
