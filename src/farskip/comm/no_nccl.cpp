#include "farskip/base/error.h"
#include "farskip/comm/nccl_api.h"

namespace farskip {
namespace {

[[noreturn]] void refuse() {
  throw UnsupportedError("this build has no NCCL",
                         {.expected = "a build against a CUDA libtorch and nccl.h",
                          .hint = "configure with -DFARSKIP_NCCL=ON to see what is missing"});
}

}  // namespace

bool nccl_is_available() { return false; }
std::string nccl_version() { refuse(); }
std::shared_ptr<NcclApi> load_nccl() { refuse(); }

}  // namespace farskip
