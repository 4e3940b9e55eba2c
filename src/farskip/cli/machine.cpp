#include "farskip/cli/machine.h"

#include <torch/version.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "farskip/base/threads.h"
#include "farskip/cuda/device.h"
#include "farskip/version.h"

namespace farskip {
namespace {

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

}  // namespace

nlohmann::ordered_json describe_machine(bool gpu) {
  nlohmann::ordered_json machine = {{"cpu", processor()},
                                    {"cores", usable_cores().size()},
                                    {"farskip", std::string(version)},
                                    {"torch", TORCH_VERSION}};
  if (gpu) machine["gpu"] = cuda_version();
  return machine;
}

}  // namespace farskip
