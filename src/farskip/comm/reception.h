#pragma once

#include <vector>

#include "farskip/comm/bootstrap.h"
#include "farskip/comm/control_links.h"

namespace farskip {

// Opens the connections between rank 0 and every other rank: on rank 0 one to each, in the order in
// which they came, on the others the one to rank 0. Returns once every rank has come. Errors: see
// join_by_sockets. A connection to rank 0 that does not speak like farskip (a port scanner, say) is
// closed and told of only if a rank stays away.
std::vector<ControlLinks::Connection> connect_ranks(const LaunchPlace& place,
                                                    const BootstrapOptions& options);

}  // namespace farskip
