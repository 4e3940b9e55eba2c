#pragma once

#include <memory>

#include "farskip/comm/group.h"
#include "farskip/comm/link_statistics.h"

namespace farskip {

// How the bytes of a loopback group travel.
enum class LoopbackPath {
  device,  // copied within the device's memory, in parts, each when an emulated link would bring it
  peer,    // another GPU fetches what would leave and brings it back, both at once, piece by piece
           // when the link would
  pcie,    // what would leave crosses to pinned host memory and back, as fast as the bus
};

struct LoopbackOptions {
  int ranks = 1;  // that the one rank stands for, itself included
  int rank = 0;   // which of them it is
  LoopbackPath path = LoopbackPath::device;
  LinkOptions link;  // paths device and peer on a GPU: what copies are paced to; 0: not paced
  at::Device device = at::kCPU;
  std::chrono::duration<double> deadline{60};
};

// One process that stands for rank `rank` of `ranks`: a load like that of a real group, to measure
// overlap with one GPU. Its peers are taken to hold this rank's tokens: in an all_to_all every rank
// sends what this rank sends to itself, so an expert here receives `ranks` times its local count;
// where a peer would send another number of rows (combine), rows of this rank's input stand in for
// them, its own rows being right. Sums and gathers do as if all ranks had this rank's input.
// Results are meaningless as text. Bytes are counted as in a real group.
//
// On a GPU everything is queued on a stream of the group's, and the host does not wait. Paced, a
// collective of B bytes (the larger direction) takes latency + B / bandwidth from when its input is
// ready. On path peer the other GPU keeps the pace and carries the bytes (cuda/peer_link.h); on
// path pcie copy engines do, at theirs. Within one GPU's memory there are none: path device copies
// by a kernel (cuda/copy.h), which needs a little room beside others, and a LinkPacer holds each
// part back until the link would begin to bring it. link_report (link_statistics.h) has the rate
// that was achieved, by the device's clock. On a CPU a collective is done when it is posted. Throws
// UsageError for ranks outside 1 to 4096, a rank outside them, a link that is none, or paths peer
// and pcie without a GPU; UnsupportedError for path peer without a second GPU that reaches this
// one, and for it and a paced path in a build without CUDA.
std::unique_ptr<Group> make_loopback_group(const LoopbackOptions& options);

}  // namespace farskip
