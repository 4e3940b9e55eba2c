#include "farskip/comm/transfer.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

namespace farskip {
namespace {

using Parts = std::span<const Collective* const>;

const char* bytes_of(const at::Tensor& tensor) {
  return static_cast<const char*>(tensor.const_data_ptr());
}

char* writable_bytes_of(const at::Tensor& tensor) {
  return static_cast<char*>(tensor.mutable_data_ptr());
}

// memcpy may not be given the null pointers that empty tensors have.
void copy(char* to, const char* from, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

int64_t row_bytes(const at::Tensor& tensor) {
  return tensor.size(0) == 0 ? 0 : static_cast<int64_t>(tensor.nbytes()) / tensor.size(0);
}

int64_t rows_before(const std::vector<int64_t>& rows, int rank) {
  int64_t total = 0;
  for (int r = 0; r < rank; ++r) total += rows[static_cast<size_t>(r)];
  return total;
}

void receive_all_to_all(Parts parts, int rank) {
  const Collective& own = *parts[static_cast<size_t>(rank)];
  const int64_t row = row_bytes(own.out);
  const int size = own.size;
  if (row == 0) return;
  // Each rank starts at another sender, so that not all read the same memory at once.
  for (int step = 0; step < size; ++step) {
    const int sender = (rank + step) % size;
    const Collective& peer = *parts[static_cast<size_t>(sender)];
    copy(writable_bytes_of(own.out) + row * rows_before(own.out_rows, sender),
         bytes_of(peer.in) + row * rows_before(peer.in_rows, rank),
         row * own.out_rows[static_cast<size_t>(sender)]);
  }
}

void receive_all_gather(Parts parts, int rank) {
  const Collective& own = *parts[static_cast<size_t>(rank)];
  const int64_t bytes = own.in_bytes();
  for (int step = 0; step < own.size; ++step) {
    const int sender = (rank + step) % own.size;
    copy(writable_bytes_of(own.out) + bytes * sender,
         bytes_of(parts[static_cast<size_t>(sender)]->in), bytes);
  }
}

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

// Adds `count` elements from `at` on of every rank's input.
template <typename T, typename Count>
void sum_block(Parts parts, int64_t at, Count count, T* result) {
  typename Accumulate<T>::Type sums[kBlock];
  for (size_t r = 0; r < parts.size(); ++r) {
    const T* const values = static_cast<const T*>(parts[r]->in.const_data_ptr()) + at;
    using Sum = typename Accumulate<T>::Type;
    if (r == 0) {
      for (int64_t i = 0; i < count; ++i) sums[i] = static_cast<Sum>(values[i]);
    } else {
      for (int64_t i = 0; i < count; ++i) sums[i] += static_cast<Sum>(values[i]);
    }
  }
  for (int64_t i = 0; i < count; ++i) result[i] = static_cast<T>(sums[i]);
}

// Adds elements [begin, end) of every rank's input and hands each block of sums to `store`.
template <typename T, typename Store>
void sum_range(Parts parts, int64_t begin, int64_t end, const Store& store) {
  T block[kBlock];
  for (int64_t at = begin; at < end; at += kBlock) {
    const int64_t count = std::min(kBlock, end - at);
    if (count == kBlock) {
      // A constant count lets the compiler use vector instructions at -O2.
      sum_block(parts, at, std::integral_constant<int64_t, kBlock>(), block);
    } else {
      sum_block(parts, at, count, block);
    }
    store(at, block, count);
  }
}

// Each rank sums one slice of the elements and writes it to every rank's output. No other share
// reads or writes that slice, which makes in-place calls safe.
template <typename T>
void all_reduce_slice(Parts parts, int rank) {
  constexpr int64_t kGrain = 64;  // elements; keeps slices on cache lines of their own
  const Collective& own = *parts[static_cast<size_t>(rank)];
  const int64_t count = own.in.numel();
  const int64_t slice = (count / own.size / kGrain + 1) * kGrain;
  const int64_t begin = std::min(count, slice * rank);
  const int64_t end = std::min(count, begin + slice);
  sum_range<T>(parts, begin, end, [&](int64_t at, const T* sums, int64_t length) {
    for (const Collective* part : parts) {
      copy(reinterpret_cast<char*>(static_cast<T*>(part->out.mutable_data_ptr()) + at),
           reinterpret_cast<const char*>(sums), length * static_cast<int64_t>(sizeof(T)));
    }
  });
}

template <typename T>
void reduce_own_part(Parts parts, int rank) {
  const Collective& own = *parts[static_cast<size_t>(rank)];
  const int64_t count = own.out.numel();
  const int64_t begin = count * rank;
  sum_range<T>(parts, begin, begin + count, [&](int64_t at, const T* sums, int64_t length) {
    copy(reinterpret_cast<char*>(static_cast<T*>(own.out.mutable_data_ptr()) + (at - begin)),
         reinterpret_cast<const char*>(sums), length * static_cast<int64_t>(sizeof(T)));
  });
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

void transfer(std::span<const Collective* const> parts, int rank) {
  const Collective& own = *parts[static_cast<size_t>(rank)];
  switch (own.kind) {
    case CollectiveKind::all_to_all:
      return receive_all_to_all(parts, rank);
    case CollectiveKind::all_gather:
      return receive_all_gather(parts, rank);
    case CollectiveKind::reduce_scatter:
      visit_summable(own.in.scalar_type(),
                     [&](auto value) { reduce_own_part<decltype(value)>(parts, rank); });
      return;
    case CollectiveKind::all_reduce:
      visit_summable(own.in.scalar_type(),
                     [&](auto value) { all_reduce_slice<decltype(value)>(parts, rank); });
      return;
    case CollectiveKind::broadcast:
      if (rank == own.root) return;
      return copy(writable_bytes_of(own.out), bytes_of(parts[static_cast<size_t>(own.root)]->in),
                  own.in_bytes());
    case CollectiveKind::barrier:
      return;
  }
}

}  // namespace farskip
