#include "farskip/comm/host_gather.h"

#include <ATen/ops/empty.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace farskip {

at::Tensor gather_on_host(Group& group, const at::Tensor& own, Tag tag) {
  std::vector<int64_t> shape = own.sizes().vec();
  shape.at(0) *= group.size();
  // From pageable memory, so the copy is over when the call returns.
  const at::Tensor mine = own.to(group.device());
  const at::Tensor all = at::empty(shape, mine.options());
  // Libtorch fills new memory on this thread's stream when it is asked to be deterministic.
  const c10::Stream stream =
      c10::impl::VirtualGuardImpl(group.device().type()).getStream(group.device());
  group.all_gather(all, mine, tag, Event::record(stream)).synchronize();
  return all.cpu();
}

}  // namespace farskip
