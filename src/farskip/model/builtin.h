#pragma once

#include <span>
#include <string>
#include <string_view>

#include "farskip/model/config.h"

namespace farskip {

// A config.json that travels inside the library; where it is from: data/models/SOURCES.md.
struct BuiltinModel {
  std::string_view name;  // lower case, e.g. "deepseek-v3"
  std::string_view json;
};

// All of them, by name.
std::span<const BuiltinModel> builtin_models();

// A path (config.json, or a folder that holds one) or the name of a built-in model in any case;
// what exists as a path is taken as one. Throws ConfigError listing close names where it is
// neither, and what read_model_config throws.
ModelConfig load_model(const std::string& name_or_path);
// The config.json behind it, as it stands. Throws as load_model.
std::string load_model_text(const std::string& name_or_path);

}  // namespace farskip
