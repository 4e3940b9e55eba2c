#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "farskip/base/error.h"
#include "farskip/base/json.h"
#include "farskip/simulate/hardware.h"

namespace farskip {
namespace {

constexpr double tera = 1e12, giga = 1e9, micro = 1e-6;
constexpr int most_ranks = 1 << 20;

// Refuses what is no field, so that a misspelt one is not silently left out.
void check_fields(const Json& object, std::initializer_list<std::string_view> known,
                  const std::string& where) {
  if (!object.is_object()) {
    throw ConfigError("not an object", {.where = where, .found = abbreviate(object)});
  }
  for (const auto& [field, value] : object.items()) {
    if (std::find(known.begin(), known.end(), field) != known.end()) continue;
    std::string names;
    for (std::string_view name : known) names += (names.empty() ? "" : ", ") + std::string(name);
    throw ConfigError("unknown field", {.where = where, .expected = names, .found = field});
  }
}

Provenance parse_provenance(const Json& object, const std::string& where) {
  const auto text = require<std::string>(object, "provenance", where);
  for (Provenance each : {Provenance::measured, Provenance::published, Provenance::assumed}) {
    if (text == to_string(each)) return each;
  }
  throw ConfigError("unknown provenance", {.where = where + ": provenance",
                                           .expected = "measured, published or assumed",
                                           .found = text});
}

// A figure in the file's unit, brought to SI. At least `least`, in the file's unit; more than it
// if `least` is 0 and `zero_allowed` is not set.
Figure parse_figure(const Json& parent, const std::string& field, const std::string& where,
                    double unit, bool zero_allowed = false, double least = 0) {
  const Json object = require<Json>(parent, field, where);
  const std::string here = where + ": " + field;
  check_fields(object, {"value", "provenance", "source", "note"}, here);
  const double value = require<double>(object, "value", here);
  const bool fits = std::isfinite(value) && std::isfinite(value * unit) &&
                    (value > least || (value == least && (zero_allowed || least > 0)));
  if (!fits) {
    const std::string bound = Json(least).dump();
    throw ConfigError("impossible figure",
                      {.where = here + ": value",
                       .expected = (zero_allowed || least > 0 ? "at least " : "more than ") + bound,
                       .found = Json(value).dump()});
  }
  return {.value = value * unit,
          .provenance = parse_provenance(object, here),
          .source = require<std::string>(object, "source", here),
          .note = optional<std::string>(object, "note", here).value_or("")};
}

std::map<DType, Figure> parse_rates(const Json& parent, const std::string& field,
                                    const std::string& where) {
  const Json object = require<Json>(parent, field, where);
  const std::string here = where + ": " + field;
  check_fields(object, {"fp32", "bf16", "fp8"}, here);
  std::map<DType, Figure> rates;
  const std::pair<const char*, DType> names[] = {
      {"fp32", DType::float32}, {"bf16", DType::bfloat16}, {"fp8", DType::float8_e4m3}};
  for (const auto& [name, dtype] : names) {
    if (object.contains(name)) rates[dtype] = parse_figure(object, name, here, tera);
  }
  if (rates.empty()) throw ConfigError("no rate at all", {.where = here});
  return rates;
}

TrafficPattern parse_kind(const Json& object, const std::string& where) {
  const auto text = require<std::string>(object, "op", where);
  for (TrafficPattern each : {TrafficPattern::all_reduce, TrafficPattern::all_gather,
                              TrafficPattern::reduce_scatter, TrafficPattern::all_to_all}) {
    if (text == to_string(each)) return each;
  }
  throw ConfigError("unknown collective",
                    {.where = where + ": op",
                     .expected = "all_reduce, all_gather, reduce_scatter or all_to_all",
                     .found = text});
}

int parse_ranks(const Json& object, const std::string& field, int least, const std::string& where) {
  const int ranks = require<int>(object, field, where);
  if (ranks >= least && ranks <= most_ranks) return ranks;
  throw ConfigError("impossible number of ranks",
                    {.where = where + ": " + field,
                     .expected = std::to_string(least) + ".." + std::to_string(most_ranks),
                     .found = std::to_string(ranks)});
}

CollectiveTable parse_table(const Json& object, const std::string& where) {
  check_fields(object, {"op", "ranks", "provenance", "source", "bytes", "latency_us"}, where);
  CollectiveTable table;
  table.kind = parse_kind(object, where);
  table.ranks = parse_ranks(object, "ranks", 2, where);
  parse_provenance(object, where);
  table.source = require<std::string>(object, "source", where);
  table.bytes = require<std::vector<double>>(object, "bytes", where);
  table.seconds = require<std::vector<double>>(object, "latency_us", where);
  bool fits = table.bytes.size() == table.seconds.size() && table.bytes.size() >= 2;
  double last = 0;
  for (size_t i = 0; fits && i < table.bytes.size(); ++i) {
    fits = std::isfinite(table.bytes[i]) && table.bytes[i] > last &&
           std::isfinite(table.seconds[i]) && table.seconds[i] > 0;
    last = table.bytes[i];
    table.seconds[i] *= micro;
  }
  if (fits) return table;
  throw ConfigError("table does not hold together",
                    {.where = where,
                     .expected = "bytes rising from above 0, as many positive latency_us, two or "
                                 "more"});
}

void parse_network(const Json& root, const std::string& where, HardwareProfile& profile) {
  const Json scale_up = require<Json>(root, "scale_up", where);
  const std::string here = where + ": scale_up";
  check_fields(scale_up, {"domain_ranks", "dispatch_gb_per_s", "combine_gb_per_s", "ring_gb_per_s"},
               here);
  profile.domain_ranks = parse_ranks(scale_up, "domain_ranks", 1, here);
  profile.dispatch_bandwidth = parse_figure(scale_up, "dispatch_gb_per_s", here, giga);
  profile.combine_bandwidth = parse_figure(scale_up, "combine_gb_per_s", here, giga);
  profile.ring_bandwidth = parse_figure(scale_up, "ring_gb_per_s", here, giga);
  profile.nic_bandwidth = parse_figure(root, "nic_gb_per_s", where, giga);
}

void parse_latencies(const Json& root, const std::string& where, HardwareProfile& profile) {
  const Json latencies = require<Json>(root, "latency_us", where);
  const std::string here = where + ": latency_us";
  const std::pair<const char*, Figure*> fields[] = {
      {"dispatch", &profile.dispatch_latency},
      {"combine", &profile.combine_latency},
      {"all_to_all", &profile.all_to_all_latency},
      {"all_reduce", &profile.all_reduce_latency},
      {"all_gather", &profile.all_gather_latency},
      {"reduce_scatter", &profile.reduce_scatter_latency},
      {"inter_node", &profile.inter_node_latency}};
  check_fields(latencies,
               {"dispatch", "combine", "all_to_all", "all_reduce", "all_gather", "reduce_scatter",
                "inter_node"},
               here);
  for (const auto& [field, figure] : fields) {
    *figure = parse_figure(latencies, field, here, micro, true);
  }
}

void check_format(const Json& root, const std::string& where) {
  check_fields(
      root,
      {"format", "version", "name", "description", "gemm_tflop_per_s", "grouped_gemm_tflop_per_s",
       "attention_tflop_per_s", "memory_gb_per_s", "memory_gb", "scale_up", "nic_gb_per_s",
       "latency_us", "kernel_launch_us", "contention_slowdown", "collective_tables"},
      where);
  const auto format = require<std::string>(root, "format", where);
  const int version = require<int>(root, "version", where);
  if (format == "farskip-hardware" && version == 1) return;
  throw ConfigError("not a hardware profile of this version",
                    {.where = where,
                     .expected = "format farskip-hardware, version 1",
                     .found = "format " + format + ", version " + std::to_string(version)});
}

}  // namespace

HardwareProfile parse_hardware(std::string_view json_text, const std::string& where) {
  const Json root = parse_json(json_text, where);
  check_format(root, where);
  HardwareProfile profile;
  profile.name = require<std::string>(root, "name", where);
  profile.description = optional<std::string>(root, "description", where).value_or("");
  profile.gemm = parse_rates(root, "gemm_tflop_per_s", where);
  profile.grouped_gemm = parse_rates(root, "grouped_gemm_tflop_per_s", where);
  profile.attention = parse_rates(root, "attention_tflop_per_s", where);
  profile.memory_bandwidth = parse_figure(root, "memory_gb_per_s", where, giga);
  profile.memory = parse_figure(root, "memory_gb", where, giga);
  parse_network(root, where, profile);
  parse_latencies(root, where, profile);
  profile.kernel_launch = parse_figure(root, "kernel_launch_us", where, micro, true);
  profile.contention_slowdown = parse_figure(root, "contention_slowdown", where, 1, true, 1);
  const Json tables = optional<Json>(root, "collective_tables", where).value_or(Json::array());
  if (!tables.is_array()) {
    throw ConfigError("not an array",
                      {.where = where + ": collective_tables", .found = abbreviate(tables)});
  }
  for (size_t i = 0; i < tables.size(); ++i) {
    profile.tables.push_back(
        parse_table(tables[i], where + ": collective_tables[" + std::to_string(i) + "]"));
  }
  return profile;
}

}  // namespace farskip
