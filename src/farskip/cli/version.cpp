#include "farskip/version.h"

#include <ATen/Context.h>
#include <torch/version.h>

#include "farskip/cli/commands.h"
#include "farskip/comm/mpi.h"
#include "farskip/comm/nccl_api.h"
#include "farskip/cuda/device.h"

namespace farskip {

std::string version_text() {
  std::string text = "farskip " + std::string(version) + "\n";
  text += std::string("torch ") + TORCH_VERSION + (at::hasCUDA() ? " (CUDA)\n" : " (CPU)\n");
  const std::string missing = "not in this build";
  text += "cuda: " + (cuda_is_built() ? cuda_version() : missing) + "\n";
  text += "nccl: " + (nccl_is_available() ? nccl_version() : missing) + "\n";
  text += "mpi: " + (mpi_is_available() ? mpi_version() : missing);
  return text;
}

}  // namespace farskip
