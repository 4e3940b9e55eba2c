#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "farskip/base/error.h"
#include "farskip/base/json.h"
#include "farskip/model/connectivity.h"
#include "farskip/model/fields.h"

namespace farskip {
namespace {

constexpr std::string_view format_name = "farskip-connectivity";
constexpr int format_version = 1;
constexpr uint64_t max_file_bytes = uint64_t{64} << 20;

std::string write(const Contribution& each) {
  return std::string(to_string(each.source)) + " " + std::to_string(each.layer);
}

std::optional<Contribution> parse_contribution(std::string_view text) {
  for (const Source source : {Source::attention, Source::shared, Source::routed}) {
    const std::string prefix = std::string(to_string(source)) + " ";
    if (!text.starts_with(prefix)) continue;
    const std::string_view digits = text.substr(prefix.size());
    int layer = 0;
    const auto [end, failure] =
        std::from_chars(digits.data(), digits.data() + digits.size(), layer);
    if (failure != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
    return Contribution{layer, source};
  }
  return std::nullopt;
}

// Why reader of `layer` can not be told to miss `each`; empty if it can.
std::string why_impossible(const Contribution& each, int layer, Reader reader,
                           const LayerKinds& layers) {
  if (each.layer < 1 || each.layer > static_cast<int>(layers.size())) {
    return "no such layer: " + write(each);
  }
  const bool own_attention =
      each.layer == layer && each.source == Source::attention && reader != Reader::attention;
  if (each.layer >= layer && !own_attention) {
    return write(each) + " does not exist yet where it is read";
  }
  if (!makes(layers[each.layer - 1], each.source)) {
    return "layer " + std::to_string(each.layer) + " makes no contribution of kind " +
           std::string(to_string(each.source));
  }
  return {};
}

std::vector<Contribution> read_list(const Fields& fields, int layer, Reader reader,
                                    const LayerKinds& layers) {
  const std::string_view key = to_string(reader);
  const std::string expected = "\"attention K\", \"shared K\" or \"routed K\" from before it";
  std::vector<Contribution> result;
  for (const std::string& text : fields.texts_or_none(key)) {
    const std::optional<Contribution> each = parse_contribution(text);
    const std::string why = each ? why_impossible(*each, layer, reader, layers)
                                 : "unknown contribution \"" + text.substr(0, 60) + "\"";
    if (!why.empty()) fields.fail(key, why, expected);
    result.push_back(*each);
  }
  if (!result.empty() && !has_reader(layers[layer - 1], reader)) {
    fields.fail(key, "layer " + std::to_string(layer) + " has no such reader", "nothing missing");
  }
  std::sort(result.begin(), result.end());
  if (std::adjacent_find(result.begin(), result.end()) != result.end()) {
    fields.fail(key, "a contribution stands twice", "each at most once");
  }
  return result;
}

void refuse_other_keys(const Json& object, const Fields& fields,
                       const std::vector<std::string_view>& known, const std::string& summary) {
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    std::string expected;
    for (const std::string_view each : known) {
      expected += (expected.empty() ? "" : ", ") + std::string(each);
    }
    fields.fail(key, summary, expected);
  }
}

void check_header(const Json& json, const Fields& fields, size_t layers) {
  if (fields.text("format") != format_name) {
    fields.fail("format", "not a connectivity", std::string(format_name));
  }
  fields.integer("version", format_version, format_version);
  refuse_other_keys(json, fields, {"format", "version", "name", "layers", "missing"},
                    "unknown field");
  const int64_t stated = fields.integer("layers", 0, max_layers);
  if (stated != static_cast<int64_t>(layers)) {
    fields.fail("layers", "made for another model", std::to_string(layers) + " layers");
  }
  if (fields.array("missing").size() != layers) {
    fields.fail("missing", "wrong length", std::to_string(layers) + " objects, one per layer");
  }
}

}  // namespace

Connectivity Connectivity::from_json(const nlohmann::json& json, const LayerKinds& layers) {
  const std::string where = "connectivity";
  const Fields fields(json, where);
  check_header(json, fields, layers.size());
  Connectivity result(fields.text_or("name", "unnamed"), layers);
  const Json& table = fields.array("missing");
  for (int layer = 1; layer <= result.layer_count(); ++layer) {
    const Json& object = table[layer - 1];
    const Fields row(object, where, "missing[" + std::to_string(layer - 1) + "]");
    refuse_other_keys(object, row, {"attention", "moe", "shared", "routing_weights"},
                      "unknown reader");
    auto& missing = result.missing_[layer - 1];
    for (int reader = 0; reader < reader_count; ++reader) {
      missing[reader] = read_list(row, layer, static_cast<Reader>(reader), layers);
    }
    if (!row.has(to_string(Reader::routing_weights))) {
      missing[static_cast<size_t>(Reader::routing_weights)] =
          missing[static_cast<size_t>(Reader::moe)];
    }
  }
  return result;
}

nlohmann::json Connectivity::to_json() const {
  Json table = Json::array();
  for (int layer = 1; layer <= layer_count(); ++layer) {
    const auto& moe = missing_[layer - 1][static_cast<size_t>(Reader::moe)];
    Json row = Json::object();
    for (int reader = 0; reader < reader_count; ++reader) {
      const auto& lacking = missing_[layer - 1][reader];
      const bool implied =
          static_cast<Reader>(reader) == Reader::routing_weights ? lacking == moe : lacking.empty();
      if (implied) continue;
      Json& names = row[std::string(to_string(static_cast<Reader>(reader)))] = Json::array();
      for (const Contribution& each : lacking) names.push_back(write(each));
    }
    table.push_back(std::move(row));
  }
  return {{"format", format_name},
          {"version", format_version},
          {"name", name_},
          {"layers", layer_count()},
          {"missing", std::move(table)}};
}

Connectivity Connectivity::load(const std::string& name_or_file, const LayerKinds& layers) {
  if (!name_or_file.ends_with(".json")) return preset(name_or_file, layers);
  const Json json = read_json_file(name_or_file, max_file_bytes);
  try {
    return from_json(json, layers);
  } catch (const ConfigError& failure) {
    Problem problem = failure.problem();
    problem.where = name_or_file + ": " + problem.where;
    throw ConfigError("not a connectivity for this model", problem);
  }
}

}  // namespace farskip
