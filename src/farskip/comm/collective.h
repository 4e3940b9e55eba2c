#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
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
  // The two ends of a message.
  send,
  receive,
};
inline bool is_message(CollectiveKind kind) {
  return kind == CollectiveKind::send || kind == CollectiveKind::receive;
}

std::string to_string(CollectiveKind kind);

// One rank's part in one collective, or one end of a message: what it was called with, and nothing
// of how it is carried out.
struct Collective {
  CollectiveKind kind = CollectiveKind::barrier;
  Tag tag = 0;
  int rank = 0;
  int size = 1;
  at::Device device = at::kCPU;
  int root = 0;                            // broadcast; of a message: the other rank
  at::Tensor out, in;                      // broadcast: both the tensor; barrier: undefined; of a
                                           // message: one of them
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

// What the ranks of one collective must agree on before a byte moves. Plain data.
struct Signature {
  CollectiveKind kind = CollectiveKind::barrier;
  Tag tag = 0;
  int rank = 0;
  int root = 0;
  at::ScalarType dtype = at::ScalarType::Undefined;
  std::vector<int64_t> shape;              // of `in`; for all_to_all of one of its rows
  std::vector<int64_t> out_rows, in_rows;  // all_to_all only
  // As Collective::name.
  std::string name() const;
};
Signature signature_of(const Collective& collective);

// The first disagreement between the ranks' parts in the same collective, part r being of rank r:
// kind, tag, root, dtype, shape, then row counts. Names two ranks and what each of them has. A part
// may also disagree with itself, about the rows that stay on its rank.
std::optional<CommError> find_disagreement(std::span<const Signature> parts);
// The same of the two ends of a message: tag, dtype, shape.
std::optional<CommError> find_disagreement(const Signature& sent, const Signature& received);

// What a caller of `collective` is told when its group has failed for `reason`.
CommError group_failure(const Collective& collective, const std::string& reason);

CollectiveBytes count_bytes(const Collective& collective);

// Bytes of one row along dimension 0; 0 if there are no rows.
int64_t row_bytes(const at::Tensor& tensor);
// Rows of the ranks before `rank`.
int64_t rows_before(const std::vector<int64_t>& rows, int rank);

}  // namespace farskip
