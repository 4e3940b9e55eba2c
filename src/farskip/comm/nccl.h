#pragma once

#include <chrono>
#include <memory>

#include "farskip/comm/bootstrap.h"
#include "farskip/comm/comm_stream.h"
#include "farskip/comm/group.h"
#include "farskip/comm/nccl_api.h"
#include "farskip/comm/stages.h"

namespace farskip {

struct NcclOptions {
  // How long a collective may take from when its stream begins with it, and any wait of the host.
  std::chrono::duration<double> deadline{60};
  // Sums in rank order, with the bits of the local and mpi groups: every rank gathers what all have
  // and adds it up, which moves and holds `size` times the bytes. Otherwise NCCL's own order.
  bool ordered = false;
  // Lets Work::device_times answer.
  bool timed = false;
};

// This rank's part of a group of all ranks of the job, one GPU a rank, over NCCL. Every rank makes
// its groups in the same order. Collectives run on a stream of their own, of high priority; posting
// one returns when it is queued there, which for the first ones may take until the peers post them
// too. NCCL does not compare what the ranks post: where tags, shapes or row counts differ, the
// collective ends at the deadline, or with wrong rows.
//
// A failure on any rank, a collective that is overdue and a rank that is gone fail the job's groups
// on every rank: a watchdog thread stops the device's part, and waits, launches and synchronize
// throw CommError. A device stream that waits for a Work goes on then, with garbage: check error()
// where a step ends. WorkTimes::started is when this rank's stream was seen to begin, with the
// other ranks perhaps still to come, and finished when the end was seen, on average half a
// millisecond late unless somebody waits; device_times is exact.
//
// Messages run on the same stream: one that is sent occupies it until it is received. NCCL matches
// them by their order alone. Ranks that send to each other need a stream each way: make_nccl_stage.
//
// Destroying the group with unfinished collectives, or in the course of an exception, fails it.
// Throws UnsupportedError without NCCL and for a device that is none; UsageError for a deadline
// that is no positive number of seconds below 1e8; CommError when the ranks do not come together.
std::unique_ptr<Group> make_nccl_group(std::shared_ptr<Bootstrap> bootstrap, at::Device device,
                                       NcclOptions options = {});

// This rank's part of a pipeline of `stages` stages, with a stream and communicator for messages of
// each direction. Every rank makes it with the others. Throws as make_nccl_group, and UsageError
// for stages that do not divide the ranks.
StageRank make_nccl_stage(std::shared_ptr<Bootstrap> bootstrap, at::Device device, int stages,
                          NcclOptions options = {});

// A group over any NCCL and any stream of a device, as tests use it.
std::unique_ptr<Group> make_nccl_group(std::shared_ptr<Bootstrap> bootstrap,
                                       std::shared_ptr<NcclApi> api,
                                       std::unique_ptr<CommStream> stream, NcclOptions options);

}  // namespace farskip
