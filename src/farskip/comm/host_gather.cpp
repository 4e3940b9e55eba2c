#include "farskip/comm/host_gather.h"

#include <ATen/ops/empty.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace farskip {

at::Tensor gather_on_host(Group& group, const at::Tensor& own, Tag tag) {
  std::vector<int64_t> shape = own.sizes().vec();
  shape.at(0) *= group.size();
  const at::Tensor mine = own.to(group.device());
  const at::Tensor all = at::empty(shape, mine.options());
  // The copy may be under way on this thread's stream, and where libtorch is asked to be
  // deterministic, what it fills new memory with.
  const c10::Stream stream =
      c10::impl::VirtualGuardImpl(group.device().type()).getStream(group.device());
  group.all_gather(all, mine, tag, Event::record(stream)).synchronize();
  return all.cpu();
}

}  // namespace farskip
