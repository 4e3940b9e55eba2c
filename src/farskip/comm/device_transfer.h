#pragma once

#include <span>

#include "farskip/comm/collective.h"

namespace farskip {

// As transfer, for tensors of one device that all ranks share, in ATen operators queued on the
// current stream; the same bits as on a CPU. The host does not wait. Thread rule: as transfer.
void device_transfer(std::span<const Collective* const> parts, int rank);

}  // namespace farskip
