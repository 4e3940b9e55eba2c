#include "farskip/comm/mpi_transfer.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "farskip/comm/ordered_sum.h"
#include "farskip/comm/transfer.h"

namespace farskip {
namespace {

// MPI's tags of tensors; what ranks tell each other has another. Messages between two ranks come in
// no fixed order with collectives.
constexpr int kCollectiveTag = 2, kMessageTag = 3;

int tag_of(const Collective& part) { return is_message(part.kind) ? kMessageTag : kCollectiveTag; }

const char* in_bytes(const Collective& part) {
  return static_cast<const char*>(part.in.const_data_ptr());
}
char* out_bytes(const Collective& part) { return static_cast<char*>(part.out.mutable_data_ptr()); }

// Bytes [begin, end) of an all_reduce that rank `rank` sums.
Slice summed_bytes(const Collective& part, int rank) {
  const auto item = static_cast<int64_t>(part.in.element_size());
  const Slice slice = all_reduce_slice(part.in.numel(), part.size, rank);
  return {slice.begin * item, slice.end * item};
}

// Calls visit with every rank but `rank`; each rank starts at another one.
template <typename Visit>
void for_each_peer(int rank, int size, const Visit& visit) {
  for (int step = 1; step < size; ++step) visit((rank + step) % size);
}

void copy(char* to, const char* from, int64_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, static_cast<size_t>(bytes));
}

}  // namespace

MpiTransfer::MpiTransfer(MpiJob& job, const Collective& part, MPI_Comm communicator,
                         int64_t longest_message)
    : job_(job), part_(part), communicator_(communicator), longest_message_(longest_message) {}

MpiTransfer::~MpiTransfer() {
  if (open_peers().empty()) return;
  for (size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] == MPI_REQUEST_NULL) continue;
    if (receives_[i]) MPI_Cancel(&requests_[i]);
    MPI_Request_free(&requests_[i]);
  }
  for (auto& addend : addends_) job_.keep(std::move(addend));
  for (const at::Tensor& tensor : {part_.in, part_.out}) {
    if (tensor.defined()) job_.keep(std::make_shared<at::Tensor>(tensor));
  }
}

void MpiTransfer::send(int to, const char* bytes, int64_t count) {
  for (int64_t at = 0; at < count; at += longest_message_) {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Isend(bytes + at, static_cast<int>(std::min(longest_message_, count - at)),
                        MPI_BYTE, to, tag_of(part_), communicator_, &request),
              "MPI_Isend");
    requests_.push_back(request);
    peers_.push_back(to);
    receives_.push_back(false);
  }
}

void MpiTransfer::receive(int from, char* bytes, int64_t count) {
  for (int64_t at = 0; at < count; at += longest_message_) {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Irecv(bytes + at, static_cast<int>(std::min(longest_message_, count - at)),
                        MPI_BYTE, from, tag_of(part_), communicator_, &request),
              "MPI_Irecv");
    requests_.push_back(request);
    peers_.push_back(from);
    receives_.push_back(true);
  }
}

void MpiTransfer::start_all_to_all() {
  const int64_t in_row = row_bytes(part_.in), out_row = row_bytes(part_.out);
  const auto in_at = [&](int rank) {
    return in_bytes(part_) + in_row * rows_before(part_.in_rows, rank);
  };
  const auto out_at = [&](int rank) {
    return out_bytes(part_) + out_row * rows_before(part_.out_rows, rank);
  };
  for_each_peer(part_.rank, part_.size, [&](int peer) {
    const auto index = static_cast<size_t>(peer);
    receive(peer, out_at(peer), out_row * part_.out_rows[index]);
    send(peer, in_at(peer), in_row * part_.in_rows[index]);
  });
  copy(out_at(part_.rank), in_at(part_.rank),
       in_row * part_.in_rows[static_cast<size_t>(part_.rank)]);
}

// Asks every rank for its addends of this rank's own bytes.
void MpiTransfer::start_reduce(int64_t own_bytes) {
  sum_left_ = true;
  addends_.resize(static_cast<size_t>(part_.size));
  for_each_peer(part_.rank, part_.size, [&](int peer) {
    auto& addend = addends_[static_cast<size_t>(peer)];
    addend = std::make_shared_for_overwrite<std::byte[]>(static_cast<size_t>(own_bytes));
    receive(peer, reinterpret_cast<char*>(addend.get()), own_bytes);
  });
  for_each_peer(part_.rank, part_.size, [&](int peer) {
    if (part_.kind == CollectiveKind::reduce_scatter) {
      return send(peer, in_bytes(part_) + own_bytes * peer, own_bytes);
    }
    const Slice slice = summed_bytes(part_, peer);
    send(peer, in_bytes(part_) + slice.begin, slice.count());
  });
}

void MpiTransfer::start() {
  started_ = true;
  const auto bytes = part_.in_bytes();
  switch (part_.kind) {
    case CollectiveKind::all_to_all:
      return start_all_to_all();
    case CollectiveKind::all_gather:
      for_each_peer(part_.rank, part_.size, [&](int peer) {
        receive(peer, out_bytes(part_) + bytes * peer, bytes);
        send(peer, in_bytes(part_), bytes);
      });
      return copy(out_bytes(part_) + bytes * part_.rank, in_bytes(part_), bytes);
    case CollectiveKind::reduce_scatter:
      return start_reduce(bytes / part_.size);
    case CollectiveKind::all_reduce:
      return start_reduce(summed_bytes(part_, part_.rank).count());
    case CollectiveKind::broadcast:
      if (part_.rank != part_.root) return receive(part_.root, out_bytes(part_), bytes);
      return for_each_peer(part_.rank, part_.size,
                           [&](int peer) { send(peer, in_bytes(part_), bytes); });
    case CollectiveKind::barrier:
      return;
    case CollectiveKind::send:
      return send(part_.root, in_bytes(part_), bytes);
    case CollectiveKind::receive:
      return receive(part_.root, out_bytes(part_), static_cast<int64_t>(part_.out.nbytes()));
  }
}

void MpiTransfer::add_up() {
  const bool all = part_.kind == CollectiveKind::all_reduce;
  const int64_t share = part_.in_bytes() / part_.size;
  const Slice own =
      all ? summed_bytes(part_, part_.rank) : Slice{share * part_.rank, share * (part_.rank + 1)};
  std::vector<const void*> inputs;
  for (const auto& addend : addends_) inputs.push_back(addend.get());
  inputs[static_cast<size_t>(part_.rank)] = in_bytes(part_) + own.begin;
  const auto item = static_cast<int64_t>(part_.in.element_size());
  char* const sums = out_bytes(part_) + (all ? own.begin : 0);
  ordered_sum(part_.in.scalar_type(), inputs, own.count() / item,
              [&](int64_t at, const void* block, int64_t count) {
                copy(sums + at * item, static_cast<const char*>(block), count * item);
              });
}

// In place, this overwrites inputs: the first round, in which they were sent, is complete.
void MpiTransfer::share_sums() {
  const Slice own = summed_bytes(part_, part_.rank);
  for_each_peer(part_.rank, part_.size, [&](int peer) {
    const Slice slice = summed_bytes(part_, peer);
    receive(peer, out_bytes(part_) + slice.begin, slice.count());
    send(peer, out_bytes(part_) + own.begin, own.count());
  });
}

bool MpiTransfer::advance() {
  if (!started_) start();
  while (true) {
    std::vector<int> finished(requests_.size());
    int count = 0;
    check_mpi(MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count,
                           finished.data(), MPI_STATUSES_IGNORE),
              "MPI_Testsome");
    const bool idle = std::all_of(requests_.begin(), requests_.end(),
                                  [](MPI_Request r) { return r == MPI_REQUEST_NULL; });
    if (!idle) return false;
    requests_.clear(), peers_.clear(), receives_.clear();
    if (!sum_left_) return true;
    sum_left_ = false;
    add_up();
    if (part_.kind == CollectiveKind::all_reduce) share_sums();
  }
}

std::vector<int> MpiTransfer::open_peers() const {
  std::set<int> open;
  for (size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] != MPI_REQUEST_NULL) open.insert(peers_[i]);
  }
  return {open.begin(), open.end()};
}

}  // namespace farskip
