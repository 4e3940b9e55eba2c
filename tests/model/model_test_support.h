#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "farskip/base/error.h"
#include "farskip/model/builtin.h"
#include "farskip/model/config.h"

namespace farskip {

// The JSON of a built-in model, to be changed by a test.
inline nlohmann::json builtin_json(std::string_view name) {
  for (const BuiltinModel& model : builtin_models()) {
    if (model.name == name) return nlohmann::json::parse(model.json);
  }
  throw ConfigError("no such built-in model: " + std::string(name));
}

inline ModelConfig parse(const nlohmann::json& json) {
  return parse_model_config(json.dump(), "test.json", "test");
}

// The message of the ConfigError that `body` throws; "" if it throws none.
template <typename Body>
std::string config_error(Body body) {
  try {
    body();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

inline std::string parse_error(const nlohmann::json& json) {
  return config_error([&] { parse(json); });
}

}  // namespace farskip
