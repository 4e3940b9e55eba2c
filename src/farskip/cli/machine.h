#pragma once

#include <nlohmann/json_fwd.hpp>

namespace farskip {

// What a measurement ran on: processor, cores this process may use, versions; with `gpu` the GPU
// and its driver too. For results that are kept.
nlohmann::ordered_json describe_machine(bool gpu);

}  // namespace farskip
