#pragma once

#include <memory>
#include <vector>

#include "farskip/comm/group.h"
#include "farskip/comm/link_statistics.h"

namespace farskip {

// Gives each rank an emulated full-duplex link. A collective keeps it busy for
//     max over the two directions of (latency + bytes to or from other ranks / bandwidth)
// from when its last rank entered (WorkTimes::started); bytes as count_bytes in collective.h says.
// The link is busy in order: a collective enters when the previous one is due. The bytes are really
// moved when that time begins; the rest of it the communication thread sleeps. A group of one rank
// needs no link. link_report (link_statistics.h) tells how late the emulation was. Throws
// UsageError as check_link, UnsupportedError for a backend without hooks.
std::vector<std::unique_ptr<Group>> make_throttled(std::vector<std::unique_ptr<Group>> inner,
                                                   LinkOptions options);

}  // namespace farskip
