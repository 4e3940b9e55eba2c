#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "farskip/comm/group.h"

namespace farskip {

enum class CollectiveKind {
  all_to_all,
  all_gather,
  reduce_scatter,
  all_reduce,
  broadcast,
  barrier,
};

std::string to_string(CollectiveKind kind);

// One rank's part in one collective: what it was called with, and nothing of how it is carried out.
struct Collective {
  CollectiveKind kind = CollectiveKind::barrier;
  Tag tag = 0;
  int rank = 0;
  int size = 1;
  at::Device device = at::kCPU;
  int root = 0;                            // broadcast only
  at::Tensor out, in;                      // broadcast: both the tensor; barrier: undefined
  std::vector<int64_t> out_rows, in_rows;  // all_to_all only
  Event ready;                             // behind it the input is there
  int64_t in_bytes() const { return in.defined() ? static_cast<int64_t>(in.nbytes()) : 0; }
  // "all_to_all, tag 7, rank 2"
  std::string name() const;
};

// Throws CommError unless the tensors are defined, contiguous, on the group's device, of one dtype,
// do not overlap (all_reduce may be in place), and have the shapes that Group documents;
// UnsupportedError for a dtype that can not be summed.
void check_arguments(const Collective& collective);

// The first disagreement between two ranks' parts in the same collective: kind, tag, root, dtype,
// row shape, row counts. Names both ranks and what each of them has. A part may also disagree with
// itself, about the rows that stay on its rank.
std::optional<CommError> find_disagreement(const Collective& a, const Collective& b);

// What a caller of `collective` is told when its group has failed for `reason`.
CommError group_failure(const Collective& collective, const std::string& reason);

// Bytes to and from other ranks. all_to_all and all_gather: what moves. With n ranks and S bytes in
// the larger tensor: all_reduce 2(n-1)/n S, all_gather and reduce_scatter (n-1)/n S (the ring
// algorithm), broadcast S out of the root and S into each other rank (a pipeline).
struct CollectiveBytes {
  int64_t out = 0, in = 0;
};
CollectiveBytes count_bytes(const Collective& collective);

}  // namespace farskip
