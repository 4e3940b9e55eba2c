#include "farskip/comm/host_gather.h"

#include <ATen/ops/empty.h>

namespace farskip {

at::Tensor gather_on_host(Group& group, const at::Tensor& own, Tag tag) {
  std::vector<int64_t> shape = own.sizes().vec();
  shape.at(0) *= group.size();
  const at::Tensor mine = own.to(group.device());
  const at::Tensor all = at::empty(shape, mine.options());
  // The copy may be under way on this thread's stream, and where libtorch is asked to be
  // deterministic, what it fills new memory with.
  group.all_gather(all, mine, tag, Event::record_current(group.device())).synchronize();
  return all.cpu();
}

}  // namespace farskip
