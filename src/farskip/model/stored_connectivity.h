#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "farskip/model/connectivity.h"

namespace farskip {

// A checkpoint whose model was trained in a connectivity says so in its config.json, where other
// programs pass over it:  "farskip": {"version": 1, "connectivity": {...}}
inline constexpr const char* stored_connectivity_key = "farskip";

// The entry for a connectivity as Connectivity::to_json gives it.
nlohmann::json stored_connectivity_entry(const nlohmann::json& connectivity);

// The connectivity that config.json states, if it does; `path` is the file or the folder that holds
// it. Throws FileError for a file that can not be read, ConfigError for an entry of another version
// or a connectivity that does not fit the layers. Any thread.
std::optional<Connectivity> read_stored_connectivity(const std::filesystem::path& path,
                                                     const LayerKinds& layers);

}  // namespace farskip
