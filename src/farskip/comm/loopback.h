#pragma once

#include <memory>

#include "farskip/comm/group.h"
#include "farskip/comm/throttled.h"

namespace farskip {

// How the bytes of a loopback group travel.
enum class LoopbackPath {
  device,  // copied within the device's memory in pieces, each when an emulated link would bring it
  pcie,    // what would leave crosses to pinned host memory, and as much comes back, both at once
};

struct LoopbackOptions {
  int ranks = 1;  // that the one rank stands for, itself included
  int rank = 0;   // which of them it is
  LoopbackPath path = LoopbackPath::device;
  LinkOptions link;  // path device: what copies are paced to; bytes_per_second 0: not paced
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
// Path device: a collective of B bytes (the larger direction) takes latency + B / bandwidth from
// when its input is ready, by a link that link_report (throttled.h) reports on: how late it was is
// how far the emulation is off. Throws UsageError for ranks outside 1 to 4096, a rank outside them,
// a link that is none, or path pcie without a GPU.
std::unique_ptr<Group> make_loopback_group(const LoopbackOptions& options);

}  // namespace farskip
