#include "farskip/runtime/kernel.h"

#include <string>

#include "farskip/base/error.h"

namespace farskip {

std::string describe(const Op& op) {
  std::string text = to_string(op.kind);
  if (op.attributes.layer > 0) text += " of layer " + std::to_string(op.attributes.layer);
  return text;
}

const KernelEntry& KernelTable::find(const Op& op) const {
  const KernelEntry& entry = entries_.at(static_cast<size_t>(op.kind));
  if (op.kind == OpKind::join) return entry;
  const bool communicates = op.lane == Lane::communication;
  if (communicates ? entry.launch == nullptr : entry.kernel == nullptr) {
    throw UnsupportedError("there is no kernel for this op",
                           {.where = describe(op),
                            .expected = communicates ? "a launch function" : "a compute kernel",
                            .found = "none in the kernel table"});
  }
  if (op.host_waits && entry.bind == nullptr) {
    throw UnsupportedError(
        "the host can not learn sizes from this op",
        {.where = describe(op), .found = "no bind function in the kernel table"});
  }
  return entry;
}

}  // namespace farskip
