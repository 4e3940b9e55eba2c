#include "farskip/comm/device_transfer.h"

#include <ATen/TensorOperators.h>

#include "farskip/comm/transfer.h"

namespace farskip {
namespace {

using Parts = std::span<const Collective* const>;

void copy(const at::Tensor& to, const at::Tensor& from) {
  if (to.numel() > 0) at::Tensor(to).copy_(from, /*non_blocking=*/true);
}

at::Tensor rows_of(const at::Tensor& tensor, const std::vector<int64_t>& rows, int rank) {
  return tensor.narrow(0, rows_before(rows, rank), rows[static_cast<size_t>(rank)]);
}

// Elements of every rank's flattened input, added in rank order; half types in float and rounded
// once at the end.
at::Tensor sum_of(Parts parts, Slice slice) {
  const at::ScalarType dtype = parts[0]->in.scalar_type();
  const bool half = dtype == at::kBFloat16 || dtype == at::kHalf;
  at::Tensor sum;
  for (const Collective* part : parts) {
    const at::Tensor flat = part->in.view({-1}).narrow(0, slice.begin, slice.count());
    const at::Tensor term = half ? flat.to(at::kFloat) : flat;
    sum = sum.defined() ? sum + term : term;
  }
  return sum.to(dtype);
}

void sum_for_all(Parts parts, int rank) {
  const Collective& own = *parts[static_cast<size_t>(rank)];
  const Slice slice = all_reduce_slice(own.in.numel(), own.size, rank);
  // With one rank the sum is its input itself, and may be its output too.
  const at::Tensor sum = sum_of(parts, slice);
  for (const Collective* part : parts) {
    copy(part->out.view({-1}).narrow(0, slice.begin, slice.count()), sum);
  }
}

}  // namespace

void device_transfer(Parts parts, int rank) {
  const Collective& own = *parts[static_cast<size_t>(rank)];
  switch (own.kind) {
    case CollectiveKind::all_to_all:
      for (const Collective* sender : parts) {
        copy(rows_of(own.out, own.out_rows, sender->rank),
             rows_of(sender->in, sender->in_rows, rank));
      }
      return;
    case CollectiveKind::all_gather:
      for (const Collective* sender : parts) {
        const int64_t rows = own.in.size(0);
        copy(own.out.narrow(0, rows * sender->rank, rows), sender->in);
      }
      return;
    case CollectiveKind::reduce_scatter: {
      const int64_t count = own.out.numel();
      return copy(own.out.view({-1}), sum_of(parts, {count * rank, count * (rank + 1)}));
    }
    case CollectiveKind::all_reduce:
      return sum_for_all(parts, rank);
    case CollectiveKind::broadcast:
      if (rank != own.root) copy(own.out, parts[static_cast<size_t>(own.root)]->in);
      return;
    case CollectiveKind::barrier:
    case CollectiveKind::send:
    case CollectiveKind::receive:
      return;
  }
}

}  // namespace farskip
