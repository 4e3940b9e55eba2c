#include "farskip/version.h"

#include <ATen/Context.h>
#include <torch/version.h>

#include "farskip/cli/commands.h"
#include "farskip/comm/mpi.h"

namespace farskip {

std::string version_text() {
  std::string text = "farskip " + std::string(version) + "\n";
  text += std::string("torch ") + TORCH_VERSION + (at::hasCUDA() ? " (CUDA)\n" : " (CPU)\n");
  text += "mpi: " + (mpi_is_available() ? mpi_version() : "not in this build");
  return text;
}

}  // namespace farskip
