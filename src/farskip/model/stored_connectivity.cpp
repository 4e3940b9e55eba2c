#include "farskip/model/stored_connectivity.h"

#include <nlohmann/json.hpp>

#include "farskip/base/error.h"
#include "farskip/base/json.h"
#include "farskip/model/fields.h"

namespace farskip {
namespace {

constexpr int64_t entry_version = 1;

}  // namespace

Json stored_connectivity_entry(const Json& connectivity) {
  return {{"version", entry_version}, {"connectivity", connectivity}};
}

std::optional<Connectivity> read_stored_connectivity(const std::filesystem::path& path,
                                                     const LayerKinds& layers) {
  std::error_code ignored;
  const bool folder = std::filesystem::is_directory(path, ignored);
  const std::filesystem::path file = folder ? path / "config.json" : path;
  const Json json = read_json_file(file);
  const Fields fields(json, file.string());
  if (!fields.has(stored_connectivity_key)) return std::nullopt;
  const Fields entry = fields.object(stored_connectivity_key);
  entry.integer("version", entry_version, entry_version);
  entry.object("connectivity");
  try {
    return Connectivity::from_json(json.at(stored_connectivity_key).at("connectivity"), layers);
  } catch (const ConfigError& failure) {
    Problem problem = failure.problem();
    problem.where = file.string() + ": " + problem.where;
    throw ConfigError("stores no connectivity for this model", problem);
  }
}

}  // namespace farskip
