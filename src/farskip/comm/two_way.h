#pragma once

#include <memory>

#include "farskip/comm/group.h"

namespace farskip {

// One group of three of the same ranks, each first in, first out on a device's stream of its own:
// collectives go through the first; messages to higher ranks, and from lower ones, through the
// second; the others through the third. A send there occupies its stream until it is received, so
// that streams for both directions are what lets two ranks send to each other and then receive.
// Throws UsageError for groups of other ranks than the first's.
std::unique_ptr<Group> make_two_way(std::unique_ptr<Group> collectives, std::unique_ptr<Group> up,
                                    std::unique_ptr<Group> down);

}  // namespace farskip
