#include "farskip/comm/transfer.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "farskip/comm/ordered_sum.h"

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

std::vector<const void*> inputs_from(Parts parts, int64_t first_byte) {
  std::vector<const void*> inputs;
  for (const Collective* part : parts) inputs.push_back(bytes_of(part->in) + first_byte);
  return inputs;
}

// Each rank sums one slice of the elements and writes it to every rank's output. No other share
// reads or writes that slice, which makes in-place calls safe.
void all_reduce_own_slice(Parts parts, int rank) {
  const Collective& own = *parts[static_cast<size_t>(rank)];
  const auto item = static_cast<int64_t>(own.in.element_size());
  const Slice slice = all_reduce_slice(own.in.numel(), own.size, rank);
  ordered_sum(own.in.scalar_type(), inputs_from(parts, slice.begin * item), slice.count(),
              [&](int64_t at, const void* sums, int64_t count) {
                for (const Collective* part : parts) {
                  copy(writable_bytes_of(part->out) + (slice.begin + at) * item,
                       static_cast<const char*>(sums), count * item);
                }
              });
}

void reduce_own_part(Parts parts, int rank) {
  const Collective& own = *parts[static_cast<size_t>(rank)];
  const auto item = static_cast<int64_t>(own.in.element_size());
  const int64_t count = own.out.numel();
  ordered_sum(own.in.scalar_type(), inputs_from(parts, count * rank * item), count,
              [&](int64_t at, const void* sums, int64_t length) {
                copy(writable_bytes_of(own.out) + at * item, static_cast<const char*>(sums),
                     length * item);
              });
}

}  // namespace

Slice all_reduce_slice(int64_t count, int size, int rank) {
  constexpr int64_t kGrain = 64;  // elements; keeps slices on cache lines of their own
  const int64_t slice = (count / size / kGrain + 1) * kGrain;
  const int64_t begin = std::min(count, slice * rank);
  return {begin, std::min(count, begin + slice)};
}

void transfer(std::span<const Collective* const> parts, int rank) {
  const Collective& own = *parts[static_cast<size_t>(rank)];
  switch (own.kind) {
    case CollectiveKind::all_to_all:
      return receive_all_to_all(parts, rank);
    case CollectiveKind::all_gather:
      return receive_all_gather(parts, rank);
    case CollectiveKind::reduce_scatter:
      return reduce_own_part(parts, rank);
    case CollectiveKind::all_reduce:
      return all_reduce_own_slice(parts, rank);
    case CollectiveKind::broadcast:
      if (rank == own.root) return;
      return copy(writable_bytes_of(own.out), bytes_of(parts[static_cast<size_t>(own.root)]->in),
                  own.in_bytes());
    case CollectiveKind::barrier:
    case CollectiveKind::send:
    case CollectiveKind::receive:
      return;
  }
}

}  // namespace farskip
