#include "farskip/train/manifest.h"

#include <charconv>
#include <cinttypes>
#include <cstdio>

#include "farskip/base/error.h"
#include "farskip/model/fields.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;

constexpr const char* file_name = "manifest.json";
constexpr std::string_view format_name = "farskip-checkpoint";
constexpr int64_t format_version = 1;
constexpr int64_t most_ranks = int64_t{1} << 20;
constexpr int64_t most = int64_t{1} << 62;

// 64 bits as text: many readers of JSON round numbers beyond 2^53.
std::string hexadecimal(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016" PRIx64, value);
  return text;
}

uint64_t read_hexadecimal(const Fields& fields, std::string_view key) {
  const std::string text = fields.text(key);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc{} || text.size() != 16 || end != text.data() + text.size()) {
    fields.fail(key, "wrong value", "16 hexadecimal digits");
  }
  return value;
}

Json to_json(const Manifest& manifest) {
  const TrainingPoint& point = manifest.point;
  Json files = Json::array();
  for (int rank = 0; rank < manifest.ranks(); ++rank) {
    const FileStamp& stamp = manifest.files[static_cast<size_t>(rank)];
    files.push_back({{"name", shard_file_name(rank)},
                     {"bytes", stamp.bytes},
                     {"checksum", hexadecimal(stamp.checksum)}});
  }
  return {{"format", format_name},
          {"version", format_version},
          {"step", point.step},
          {"tokens", point.tokens},
          {"model",
           {{"config", point.model_config}, {"fingerprint", hexadecimal(point.model_fingerprint)}}},
          {"connectivity", point.connectivity},
          {"data", {{"seed", hexadecimal(point.data_seed)}, {"position", point.data_position}}},
          {"settings", point.settings},
          {"ranks", manifest.ranks()},
          {"files", std::move(files)}};
}

void check_format(const Json& json, const std::string& where) {
  const auto format = json.is_object() ? json.find("format") : json.end();
  if (!json.is_object() || format == json.end() || *format != format_name) {
    throw FileError("not a training checkpoint", {.where = where,
                                                  .expected = "format " + std::string(format_name),
                                                  .found = abbreviate(json)});
  }
  const auto version = json.find("version");
  if (version == json.end() || *version != format_version) {
    throw FileError("checkpoint has another format version",
                    {.where = where,
                     .expected = std::to_string(format_version),
                     .found = version == json.end() ? "none" : abbreviate(*version),
                     .hint = "read it with the version of farskip that wrote it"});
  }
}

FileStamp read_file_entry(const Json& json, const std::string& where, int rank) {
  const Fields fields(json, where, "files[" + std::to_string(rank) + "]");
  if (fields.text("name") != shard_file_name(rank)) {
    fields.fail("name", "wrong file", shard_file_name(rank));
  }
  return {static_cast<uint64_t>(fields.integer("bytes", 0, most)),
          read_hexadecimal(fields, "checksum")};
}

Manifest from_json(const Json& json, const std::string& where) {
  check_format(json, where);
  const Fields fields(json, where);
  const Fields model = fields.object("model"), data = fields.object("data");
  Manifest manifest;
  TrainingPoint& point = manifest.point;
  point.step = fields.integer("step", 0, most);
  point.tokens = fields.integer("tokens", 0, most);
  point.model_config = model.text("config");
  point.model_fingerprint = read_hexadecimal(model, "fingerprint");
  point.connectivity = json.value("connectivity", Json());
  point.data_seed = read_hexadecimal(data, "seed");
  point.data_position = data.integer("position", 0, most);
  point.settings = json.value("settings", Json());
  const auto ranks = static_cast<int>(fields.integer("ranks", 1, most_ranks));
  const Json& files = fields.array("files");
  if (static_cast<int>(files.size()) != ranks) {
    fields.fail("files", "wrong number of files", std::to_string(ranks) + ", one a rank");
  }
  for (int rank = 0; rank < ranks; ++rank) {
    manifest.files.push_back(read_file_entry(files[static_cast<size_t>(rank)], where, rank));
  }
  return manifest;
}

void check_sizes(const fs::path& folder, const Manifest& manifest) {
  for (int rank = 0; rank < manifest.ranks(); ++rank) {
    const fs::path file = folder / shard_file_name(rank);
    const uint64_t stated = manifest.files[static_cast<size_t>(rank)].bytes;
    std::error_code error;
    const uint64_t size = fs::file_size(file, error);
    if (!error && size == stated) continue;
    throw FileError(error ? "shard can not be read" : "shard has another size",
                    {.where = file.string(),
                     .expected = std::to_string(stated) + " bytes",
                     .found = error ? error.message() : std::to_string(size),
                     .hint = "use an older checkpoint"});
  }
}

}  // namespace

std::string shard_file_name(int rank) {
  char text[32];
  std::snprintf(text, sizeof text, "rank-%05d.safetensors", rank);
  return text;
}

void write_manifest(const fs::path& folder, const Manifest& manifest) {
  write_json_file(folder / file_name, to_json(manifest));
}

Manifest read_manifest(const fs::path& folder) {
  const fs::path path = folder / file_name;
  Manifest manifest = from_json(read_json_file(path), path.string());
  check_sizes(folder, manifest);
  return manifest;
}

}  // namespace farskip
