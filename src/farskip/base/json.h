#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "farskip/base/files.h"

namespace farskip {

using Json = nlohmann::json;

// Parses one JSON document. `where` names its origin in messages. Throws FileError with line and
// column for text that is not JSON, for a key that stands twice in one object, for nesting deeper
// than 128 and for numbers out of range. Any thread.
Json parse_json(std::string_view text, const std::string& where);

// Reads and parses a file; where is its path. Throws FileError.
Json read_json_file(const std::filesystem::path& path, uint64_t max_bytes = default_file_cap);

// Writes a document, indented by two, whole or not at all. Throws FileError.
void write_json_file(const std::filesystem::path& path, const Json& json);

// The field of an object as a T; throws ConfigError "where: field: ..." when `object` is no object,
// or the field is missing, null, of another type, or out of T's range.
// T: bool, int, int64_t, uint64_t, double, std::string, std::vector of bool, int64_t, double or
// std::string, or Json (any value but null). An integer is accepted as a double, never the reverse.
template <typename T>
T require(const Json& object, const std::string& field, const std::string& where);

// The same, but nothing when the field is missing or null.
template <typename T>
std::optional<T> optional(const Json& object, const std::string& field, const std::string& where);

// A value as it stands in a message: compact JSON, cut after about 60 characters.
std::string abbreviate(const Json& value);

}  // namespace farskip
