#pragma once

#include "farskip/comm/group.h"

namespace farskip {

// all_gather of small tensors in host memory, whatever the group's device: `own` [n, ...] of this
// rank; result [size * n, ...] in rank order, in host memory. Blocks. Throws as Group.
at::Tensor gather_on_host(Group& group, const at::Tensor& own, Tag tag);

}  // namespace farskip
