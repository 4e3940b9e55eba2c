#pragma once

#include <ATen/core/Tensor.h>

#include "farskip/comm/collective.h"
#include "farskip/comm/comm_stream.h"
#include "farskip/comm/nccl_communicator.h"

namespace farskip {

// What carries out the collectives of one group.
struct NcclLauncher {
  NcclCommunicator& communicator;
  CommStream& stream;
  bool ordered = false;  // sums in rank order
  at::Tensor token;      // one int, for barriers
  NcclCommunicator::Check check;

  // Memory that launch needs, and the device until the collective is done; undefined if none.
  at::Tensor scratch(const Collective& collective) const;
  // Queues one rank's part of a collective on the stream. Throws CommError; NCCL may then still
  // queue a part of it, until the communicator is aborted.
  void launch(const Collective& collective, const at::Tensor& scratch,
              const Deadline& deadline) const;

 private:
  void all_to_all(const Collective& collective, const Deadline& deadline) const;
  void sum_in_order(const Collective& collective, const at::Tensor& rows,
                    const Deadline& deadline) const;
  void native(const Collective& collective, const Deadline& deadline) const;
  void message(const Collective& collective, const Deadline& deadline) const;
  void call(const NcclCommunicator::Calls& calls, const Deadline& deadline) const {
    communicator.launch(calls, deadline, check);
  }
};

// NCCL's name for a dtype that it can add up. Throws UnsupportedError.
NcclType nccl_type(c10::ScalarType dtype);

}  // namespace farskip
