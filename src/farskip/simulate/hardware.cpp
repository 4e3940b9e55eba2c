#include "farskip/simulate/hardware.h"

#include <algorithm>

#include "farskip/base/error.h"
#include "farskip/base/files.h"
#include "farskip/simulate/builtin_hardware.h"

namespace farskip {
namespace {

double rate_of(const std::map<DType, Figure>& rates, DType dtype, const char* field,
               const HardwareProfile& profile) {
  const DType asked = dtype == DType::float16 ? DType::bfloat16 : dtype;
  const auto found = rates.find(asked);
  if (found != rates.end()) return found->second.value;
  throw ConfigError("no rate for this dtype",
                    {.where = "hardware profile '" + profile.name + "': " + field,
                     .expected = "fp32, bf16 or fp8, as the profile has",
                     .found = "dtype " + std::to_string(static_cast<int>(dtype)),
                     .hint = "choose another dtype, or add the rate to a profile of your own"});
}

bool is_path(const std::string& name) {
  return name.find('/') != std::string::npos || name.ends_with(".json");
}

std::string joined_names() {
  std::string names;
  for (const std::string& name : hardware_names()) names += (names.empty() ? "" : ", ") + name;
  return names;
}

}  // namespace

const char* to_string(Provenance provenance) {
  switch (provenance) {
    case Provenance::measured:
      return "measured";
    case Provenance::published:
      return "published";
    case Provenance::assumed:
      return "assumed";
  }
  return "unknown";
}

const char* to_string(TrafficPattern kind) {
  switch (kind) {
    case TrafficPattern::all_reduce:
      return "all_reduce";
    case TrafficPattern::all_gather:
      return "all_gather";
    case TrafficPattern::reduce_scatter:
      return "reduce_scatter";
    case TrafficPattern::all_to_all:
      return "all_to_all";
  }
  return "unknown";
}

double HardwareProfile::gemm_rate(DType dtype) const {
  return rate_of(gemm, dtype, "gemm_tflop_per_s", *this);
}

double HardwareProfile::grouped_gemm_rate(DType dtype) const {
  return rate_of(grouped_gemm, dtype, "grouped_gemm_tflop_per_s", *this);
}

double HardwareProfile::attention_rate(DType dtype) const {
  return rate_of(attention, dtype, "attention_tflop_per_s", *this);
}

const Figure& HardwareProfile::latency(TrafficPattern kind) const {
  switch (kind) {
    case TrafficPattern::all_reduce:
      return all_reduce_latency;
    case TrafficPattern::all_gather:
      return all_gather_latency;
    case TrafficPattern::reduce_scatter:
      return reduce_scatter_latency;
    case TrafficPattern::all_to_all:
      return all_to_all_latency;
  }
  throw Error("unknown kind of collective");
}

std::vector<std::string> hardware_names() {
  std::vector<std::string> names;
  for (const BuiltinHardware& builtin : builtin_hardware()) names.emplace_back(builtin.name);
  std::sort(names.begin(), names.end());
  return names;
}

HardwareProfile load_hardware(const std::string& name_or_path) {
  for (const BuiltinHardware& builtin : builtin_hardware()) {
    if (builtin.name != name_or_path) continue;
    return parse_hardware(builtin.json, "built-in hardware profile '" + name_or_path + "'");
  }
  if (is_path(name_or_path)) {
    constexpr uint64_t most_bytes = uint64_t{16} << 20;
    return parse_hardware(read_file(name_or_path, most_bytes), name_or_path);
  }
  throw ConfigError("unknown hardware profile",
                    {.where = "hardware",
                     .expected = "one of " + joined_names() + ", or a path to a JSON file",
                     .found = "'" + name_or_path.substr(0, 100) + "'"});
}

HardwareProfile linear_model(HardwareProfile profile) {
  for (Figure* figure :
       {&profile.dispatch_latency, &profile.combine_latency, &profile.all_to_all_latency,
        &profile.all_reduce_latency, &profile.all_gather_latency, &profile.reduce_scatter_latency,
        &profile.inter_node_latency, &profile.kernel_launch}) {
    *figure = {.value = 0, .note = "linear model"};
  }
  profile.contention_slowdown = {.value = 1, .note = "linear model"};
  profile.grouped_gemm = profile.gemm;
  profile.tables.clear();
  return profile;
}

}  // namespace farskip
