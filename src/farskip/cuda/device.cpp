#include "farskip/cuda/device.h"

#include <cuda_runtime_api.h>

namespace farskip {
namespace {

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// Hopper's machine code, and portable code that the driver translates for what came after.
bool runs_here(const cudaDeviceProp& device) { return device.major >= 9; }

// The first GPU's properties; a description of what is missing otherwise.
std::string find_device(cudaDeviceProp& device) {
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count == 0) error = cudaErrorNoDevice;
  if (error == cudaSuccess) error = cudaGetDeviceProperties(&device, 0);
  // A later launch must not find the error of this question.
  cudaGetLastError();
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

}  // namespace

bool cuda_is_built() { return true; }

bool cuda_is_available() {
  cudaDeviceProp device;
  return find_device(device).empty() && runs_here(device);
}

std::string cuda_version() {
  cudaDeviceProp device;
  int driver = 0;
  const std::string built = "CUDA " + version_text(CUDART_VERSION);
  const std::string missing = find_device(device);
  if (!missing.empty()) return built + ", no GPU (" + missing + ")";
  cudaDriverGetVersion(&driver);
  return built + ", driver " + version_text(driver) + ", " + device.name + " (sm_" +
         std::to_string(device.major) + std::to_string(device.minor) +
         (runs_here(device) ? ")" : ", which these kernels do not run on)");
}

}  // namespace farskip
