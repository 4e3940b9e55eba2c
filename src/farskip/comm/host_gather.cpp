#include "farskip/comm/host_gather.h"

#include <ATen/ops/empty.h>

namespace farskip {

at::Tensor gather_on_host(Group& group, const at::Tensor& own, Tag tag) {
  std::vector<int64_t> shape = own.sizes().vec();
  shape.at(0) *= group.size();
  // From pageable memory, so the copy is over when the call returns.
  const at::Tensor mine = own.to(group.device());
  const at::Tensor all = at::empty(shape, mine.options());
  group.all_gather(all, mine, tag).synchronize();
  return all.cpu();
}

}  // namespace farskip
