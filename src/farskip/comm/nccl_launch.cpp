#include "farskip/comm/nccl_launch.h"

#include "farskip/base/error.h"

namespace farskip {
namespace {

struct Bytes {
  char* begin;
  size_t count;
};

Bytes rows_of(const at::Tensor& tensor, int64_t first, int64_t rows) {
  const int64_t row = row_bytes(tensor);
  // Written only where it is an output, whose memory the group made this tensor's own.
  auto* const begin = static_cast<char*>(const_cast<void*>(tensor.const_data_ptr()));
  return {begin + first * row, static_cast<size_t>(rows * row)};
}

// One rank's part of an all_to_all, by bytes: send[r] to rank r, receive[r] from it. This rank's
// own are left out.
void exchange(const NcclCommunicator& communicator, NcclHandle handle, const c10::Stream& stream,
              int rank, const std::vector<Bytes>& send, const std::vector<Bytes>& receive) {
  const size_t size = send.size();
  for (size_t step = 1; step < size; ++step) {
    // Each rank starts with another peer, so that not all send to the same one first.
    const size_t to = (static_cast<size_t>(rank) + step) % size;
    const size_t from = (static_cast<size_t>(rank) + size - step) % size;
    if (send[to].count > 0) {
      communicator.expect(communicator.api().send(send[to].begin, send[to].count, NcclType::uint8,
                                                  static_cast<int>(to), handle, stream),
                          "ncclSend");
    }
    if (receive[from].count > 0) {
      communicator.expect(
          communicator.api().recv(receive[from].begin, receive[from].count, NcclType::uint8,
                                  static_cast<int>(from), handle, stream),
          "ncclRecv");
    }
  }
}

// rows [size, n] of one dtype into out [n]. 16-bit floats in float, as the local group does.
void sum_rows(const at::Tensor& out, const at::Tensor& rows) {
  const bool narrow = rows.scalar_type() == at::kBFloat16 || rows.scalar_type() == at::kHalf;
  at::Tensor sum = rows.select(0, 0).to(narrow ? at::kFloat : rows.scalar_type(), false, true);
  for (int64_t rank = 1; rank < rows.size(0); ++rank) sum.add_(rows.select(0, rank));
  out.view({-1}).copy_(sum);
}

}  // namespace

NcclType nccl_type(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::kFloat:
      return NcclType::float32;
    case c10::kDouble:
      return NcclType::float64;
    case c10::kBFloat16:
      return NcclType::bfloat16;
    case c10::kHalf:
      return NcclType::float16;
    case c10::kInt:
      return NcclType::int32;
    case c10::kLong:
      return NcclType::int64;
    case c10::kChar:
      return NcclType::int8;
    case c10::kByte:
      return NcclType::uint8;
    default:
      throw UnsupportedError(
          "NCCL can not sum this dtype",
          {.expected = "a float of 16 to 64 bits or an integer", .found = c10::toString(dtype)});
  }
}

at::Tensor NcclLauncher::scratch(const Collective& collective) const {
  const bool sums = collective.kind == CollectiveKind::all_reduce ||
                    collective.kind == CollectiveKind::reduce_scatter;
  if (!ordered || !sums) return {};
  return stream.empty({collective.size, collective.out.numel()}, collective.in.scalar_type());
}

void NcclLauncher::launch(const Collective& collective, const at::Tensor& scratch,
                          const Deadline& deadline) const {
  if (collective.kind == CollectiveKind::all_to_all) return all_to_all(collective, deadline);
  if (is_message(collective.kind)) return message(collective, deadline);
  // Nothing to move: the ranks agree about that, so all of them skip it.
  if (collective.kind != CollectiveKind::barrier && collective.in.numel() == 0) return;
  if (scratch.defined()) return sum_in_order(collective, scratch, deadline);
  native(collective, deadline);
}

void NcclLauncher::all_to_all(const Collective& collective, const Deadline& deadline) const {
  std::vector<Bytes> send, receive;
  int64_t in_begin = 0, out_begin = 0;
  for (int peer = 0; peer < collective.size; ++peer) {
    const int64_t in_rows = collective.in_rows[static_cast<size_t>(peer)];
    const int64_t out_rows = collective.out_rows[static_cast<size_t>(peer)];
    send.push_back(rows_of(collective.in, in_begin, in_rows));
    receive.push_back(rows_of(collective.out, out_begin, out_rows));
    if (peer == collective.rank) {
      if (in_rows != out_rows) {
        throw CommError("row counts disagree",
                        {.where = collective.name(),
                         .expected = std::to_string(in_rows) + " rows that stay on this rank",
                         .found = std::to_string(out_rows)});
      }
      stream.run([out = collective.out.narrow(0, out_begin, out_rows),
                  in = collective.in.narrow(0, in_begin, in_rows)] { out.copy_(in, true); });
    }
    in_begin += in_rows;
    out_begin += out_rows;
  }
  call(
      [&](const NcclCommunicator& each, NcclHandle handle) {
        exchange(each, handle, stream.stream(), collective.rank, send, receive);
      },
      deadline);
}

void NcclLauncher::sum_in_order(const Collective& collective, const at::Tensor& rows,
                                const Deadline& deadline) const {
  const at::Tensor& in = collective.in;
  const int64_t size = collective.size, count = collective.out.numel();
  if (collective.kind == CollectiveKind::all_reduce) {
    call(
        [&](const NcclCommunicator& each, NcclHandle handle) {
          each.expect(each.api().all_gather(in.const_data_ptr(), rows.mutable_data_ptr(),
                                            in.nbytes(), NcclType::uint8, handle, stream.stream()),
                      "ncclAllGather");
        },
        deadline);
  } else {
    const at::Tensor parts = in.view({size, count});
    std::vector<Bytes> send, receive;
    for (int64_t peer = 0; peer < size; ++peer) {
      send.push_back(rows_of(parts, peer, 1));
      receive.push_back(rows_of(rows, peer, 1));
    }
    stream.run([to = rows.select(0, collective.rank), from = parts.select(0, collective.rank)] {
      to.copy_(from, true);
    });
    call(
        [&](const NcclCommunicator& each, NcclHandle handle) {
          exchange(each, handle, stream.stream(), collective.rank, send, receive);
        },
        deadline);
  }
  stream.run([out = collective.out, rows] { sum_rows(out, rows); });
}

void NcclLauncher::message(const Collective& collective, const Deadline& deadline) const {
  const bool sends = collective.kind == CollectiveKind::send;
  const at::Tensor& tensor = sends ? collective.in : collective.out;
  if (tensor.numel() == 0) return;  // both ends agree about that
  const Bytes bytes = rows_of(tensor, 0, tensor.dim() == 0 ? 1 : tensor.size(0));
  const c10::Stream on = stream.stream();
  call(
      [&](const NcclCommunicator& each, NcclHandle handle) {
        if (sends) {
          each.expect(each.api().send(bytes.begin, tensor.nbytes(), NcclType::uint8,
                                      collective.root, handle, on),
                      "ncclSend");
        } else {
          each.expect(each.api().recv(bytes.begin, tensor.nbytes(), NcclType::uint8,
                                      collective.root, handle, on),
                      "ncclRecv");
        }
      },
      deadline);
}

void NcclLauncher::native(const Collective& collective, const Deadline& deadline) const {
  const bool is_barrier = collective.kind == CollectiveKind::barrier;
  const at::Tensor& out = is_barrier ? token : collective.out;
  const at::Tensor& in = is_barrier ? token : collective.in;
  const void* const from = in.const_data_ptr();
  void* const to = out.mutable_data_ptr();
  const c10::Stream on = stream.stream();
  const size_t bytes = in.nbytes();
  call(
      [&](const NcclCommunicator& each, NcclHandle handle) {
        switch (collective.kind) {
          case CollectiveKind::all_gather:
            return each.expect(each.api().all_gather(from, to, bytes, NcclType::uint8, handle, on),
                               "ncclAllGather");
          case CollectiveKind::broadcast:
            return each.expect(
                each.api().broadcast(from, to, bytes, NcclType::uint8, collective.root, handle, on),
                "ncclBroadcast");
          case CollectiveKind::reduce_scatter:
            return each.expect(each.api().reduce_scatter(from, to, static_cast<size_t>(out.numel()),
                                                         nccl_type(in.scalar_type()), handle, on),
                               "ncclReduceScatter");
          case CollectiveKind::all_reduce:
          case CollectiveKind::barrier:
            return each.expect(each.api().all_reduce(from, to, static_cast<size_t>(in.numel()),
                                                     nccl_type(in.scalar_type()), handle, on),
                               "ncclAllReduce");
          case CollectiveKind::all_to_all:
          case CollectiveKind::send:
          case CollectiveKind::receive:
            return;
        }
      },
      deadline);
}

}  // namespace farskip
