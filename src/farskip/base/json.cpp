#include "farskip/base/json.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <type_traits>

#include "farskip/base/error.h"

namespace farskip {
namespace {

constexpr int max_depth = 128;

std::string line_and_column(std::string_view text, size_t byte) {
  const std::string_view before = text.substr(0, std::min(byte, text.size()));
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t start = before.rfind('\n');
  const size_t column = start == std::string_view::npos ? before.size() : before.size() - start - 1;
  return "line " + std::to_string(line) + ", column " + std::to_string(column + 1);
}

// The library's message without its "[json.exception...] parse error at line ...:" in front.
std::string reason_of(const Json::exception& error) {
  std::string text = error.what();
  if (const size_t bracket = text.find("] "); bracket != std::string::npos) {
    text.erase(0, bracket + 2);
  }
  if (text.starts_with("parse error at")) {
    if (const size_t colon = text.find(": "); colon != std::string::npos) text.erase(0, colon + 2);
  }
  return text;
}

// Refuses what the parser itself lets through: repeated keys and bottomless nesting.
class StructureCheck {
 public:
  explicit StructureCheck(const std::string& where) : where_(where) {}

  bool operator()(int, Json::parse_event_t event, Json& parsed) {
    using Event = Json::parse_event_t;
    if (event == Event::object_start || event == Event::array_start) {
      keys_.emplace_back();
      if (keys_.size() > max_depth) {
        throw FileError("JSON is nested too deeply",
                        {.where = where_, .expected = "at most " + std::to_string(max_depth)});
      }
    } else if (event == Event::object_end || event == Event::array_end) {
      keys_.pop_back();
    } else if (event == Event::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys_.back().insert(key).second) {
        throw FileError("JSON object has a key twice",
                        {.where = where_, .expected = "unique keys", .found = abbreviate(parsed)});
      }
    }
    return true;
  }

 private:
  const std::string& where_;
  std::vector<std::set<std::string>> keys_;
};

template <typename T>
struct IsVector : std::false_type {};
template <typename T>
struct IsVector<std::vector<T>> : std::true_type {};

template <typename T>
std::string type_name() {
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  if constexpr (std::is_same_v<T, std::string>) return "a string";
  if constexpr (std::is_same_v<T, double>) return "a number";
  if constexpr (std::is_same_v<T, Json>) return "a value";
  if constexpr (std::is_same_v<T, uint64_t>) return "an integer of at least 0";
  if constexpr (IsVector<T>::value) {
    return "an array, each element " + type_name<typename T::value_type>();
  }
  return "an integer";
}

template <typename T>
std::optional<T> integer_from(const Json& value) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (std::in_range<T>(number)) return static_cast<T>(number);
    return std::nullopt;
  }
  const auto number = value.get<int64_t>();
  if (std::in_range<T>(number)) return static_cast<T>(number);
  return std::nullopt;
}

template <typename T>
std::optional<T> convert(const Json& value) {
  if constexpr (std::is_same_v<T, Json>) {
    return value;
  } else if constexpr (IsVector<T>::value) {
    if (!value.is_array()) return std::nullopt;
    T result;
    result.reserve(value.size());
    for (const Json& element : value) {
      auto converted = convert<typename T::value_type>(element);
      if (!converted) return std::nullopt;
      result.push_back(std::move(*converted));
    }
    return result;
  } else if constexpr (std::is_same_v<T, bool>) {
    return value.is_boolean() ? std::optional(value.get<bool>()) : std::nullopt;
  } else if constexpr (std::is_same_v<T, std::string>) {
    return value.is_string() ? std::optional(value.get<std::string>()) : std::nullopt;
  } else if constexpr (std::is_same_v<T, double>) {
    return value.is_number() ? std::optional(value.get<double>()) : std::nullopt;
  } else {
    return integer_from<T>(value);
  }
}

// The field, or null when it is missing or null.
const Json* find_field(const Json& object, const std::string& field, const std::string& where) {
  if (!object.is_object()) {
    throw ConfigError("can not be read for field '" + field + "'",
                      {.where = where, .expected = "an object", .found = abbreviate(object)});
  }
  const auto found = object.find(field);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

template <typename T>
T convert_or_throw(const Json& value, const std::string& field, const std::string& where) {
  auto result = convert<T>(value);
  if (!result) {
    throw ConfigError(
        "wrong value",
        {.where = where + ": " + field, .expected = type_name<T>(), .found = abbreviate(value)});
  }
  return std::move(*result);
}

}  // namespace

std::string abbreviate(const Json& value) {
  constexpr size_t limit = 60;
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() <= limit) return text;
  size_t end = limit;
  // Never cut inside a UTF-8 sequence.
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  return text.substr(0, end) + "...";
}

Json parse_json(std::string_view text, const std::string& where) {
  try {
    return Json::parse(text.begin(), text.end(), StructureCheck(where));
  } catch (const Json::parse_error& error) {
    // byte counts from 1, and stands behind the text when that ends too early.
    const size_t byte = error.byte > 0 ? error.byte - 1 : 0;
    throw FileError("not valid JSON", {.where = where + ": " + line_and_column(text, byte),
                                       .found = reason_of(error)});
  } catch (const Json::exception& error) {
    throw FileError("not usable JSON", {.where = where, .found = reason_of(error)});
  }
}

Json read_json_file(const std::filesystem::path& path, uint64_t max_bytes) {
  return parse_json(read_file(path, max_bytes), path.string());
}

void write_json_file(const std::filesystem::path& path, const Json& json) {
  write_file_atomically(path, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

template <typename T>
T require(const Json& object, const std::string& field, const std::string& where) {
  const Json* value = find_field(object, field, where);
  if (value == nullptr) {
    throw ConfigError("missing field",
                      {.where = where + ": " + field,
                       .expected = type_name<T>(),
                       .found = object.contains(field) ? "null" : "no such field"});
  }
  return convert_or_throw<T>(*value, field, where);
}

template <typename T>
std::optional<T> optional(const Json& object, const std::string& field, const std::string& where) {
  const Json* value = find_field(object, field, where);
  if (value == nullptr) return std::nullopt;
  return convert_or_throw<T>(*value, field, where);
}

#define FARSKIP_INSTANTIATE(T)                                                \
  template T require<T>(const Json&, const std::string&, const std::string&); \
  template std::optional<T> optional<T>(const Json&, const std::string&, const std::string&);
FARSKIP_INSTANTIATE(bool)
FARSKIP_INSTANTIATE(int)
FARSKIP_INSTANTIATE(int64_t)
FARSKIP_INSTANTIATE(uint64_t)
FARSKIP_INSTANTIATE(double)
FARSKIP_INSTANTIATE(std::string)
FARSKIP_INSTANTIATE(Json)
FARSKIP_INSTANTIATE(std::vector<bool>)
FARSKIP_INSTANTIATE(std::vector<int64_t>)
FARSKIP_INSTANTIATE(std::vector<double>)
FARSKIP_INSTANTIATE(std::vector<std::string>)
#undef FARSKIP_INSTANTIATE

}  // namespace farskip
