#include "farskip/model/fields.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "farskip/base/error.h"

namespace farskip {
namespace {

std::string in_range(const char* what, const std::string& low, const std::string& high) {
  return std::string(what) + " from " + low + " to " + high;
}

std::string integer_range(int64_t low, int64_t high) {
  return in_range("an integer", std::to_string(low), std::to_string(high));
}

std::string plain(double value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

}  // namespace

Fields::Fields(const Json& object, std::string where, std::string prefix)
    : object_(object), where_(std::move(where)), prefix_(std::move(prefix)) {
  if (!object_.is_object()) {
    throw ConfigError("not a JSON object",
                      {.where = prefix_.empty() ? where_ : where_ + ": " + prefix_,
                       .expected = "an object",
                       .found = abbreviate(object_)});
  }
}

const Json* Fields::find(std::string_view key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

const Json& Fields::require(std::string_view key, const std::string& expected) const {
  const Json* value = find(key);
  if (!value) {
    throw ConfigError("missing field", {.where = place(key),
                                        .expected = expected,
                                        .found = object_.contains(key) ? "null" : "nothing"});
  }
  return *value;
}

std::string Fields::place(std::string_view key) const {
  std::string path = prefix_;
  if (!path.empty() && !key.empty()) path += '.';
  path += key;
  return where_ + ": " + path;
}

void Fields::fail(std::string_view key, const std::string& summary, const std::string& expected,
                  const std::string& hint) const {
  const Json* value = find(key);
  throw ConfigError(summary, {.where = place(key),
                              .expected = expected,
                              .found = value ? abbreviate(*value) : "nothing",
                              .hint = hint});
}

bool Fields::stated_null(std::string_view key) const { return !has(key) && object_.contains(key); }

std::string_view Fields::first_of(std::initializer_list<std::string_view> keys) const {
  for (const std::string_view key : keys) {
    if (has(key)) return key;
  }
  return *(keys.end() - 1);
}

int64_t Fields::to_integer(const Json& value, const std::string& label, int64_t low,
                           int64_t high) const {
  const auto refuse = [&](const char* summary) {
    throw ConfigError(
        summary,
        {.where = place(label), .expected = integer_range(low, high), .found = abbreviate(value)});
  };
  if (!value.is_number_integer()) refuse("wrong type");
  const bool beyond = value.is_number_unsigned() &&
                      value.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()};
  const int64_t result = value.get<int64_t>();
  if (beyond || result < low || result > high) refuse("out of range");
  return result;
}

int64_t Fields::integer(std::string_view key, int64_t low, int64_t high) const {
  return to_integer(require(key, integer_range(low, high)), std::string(key), low, high);
}

int64_t Fields::integer_or(std::string_view key, int64_t fallback, int64_t low,
                           int64_t high) const {
  return has(key) ? integer(key, low, high) : fallback;
}

double Fields::number(std::string_view key, double low, double high) const {
  const std::string expected = in_range("a number", plain(low), plain(high));
  const Json& value = require(key, expected);
  if (!value.is_number()) fail(key, "wrong type", expected);
  const double result = value.get<double>();
  if (!(result >= low && result <= high)) fail(key, "out of range", expected);
  return result;
}

double Fields::number_or(std::string_view key, double fallback, double low, double high) const {
  return has(key) ? number(key, low, high) : fallback;
}

bool Fields::flag_or(std::string_view key, bool fallback) const {
  const Json* value = find(key);
  if (!value) return fallback;
  if (!value->is_boolean()) fail(key, "wrong type", "true or false");
  return value->get<bool>();
}

std::string Fields::text(std::string_view key) const {
  const Json& value = require(key, "a string");
  if (!value.is_string()) fail(key, "wrong type", "a string");
  return value.get<std::string>();
}

std::string Fields::text_or(std::string_view key, std::string fallback) const {
  return has(key) ? text(key) : fallback;
}

const Json& Fields::array(std::string_view key) const {
  const Json& value = require(key, "an array");
  if (!value.is_array()) fail(key, "wrong type", "an array");
  return value;
}

std::vector<int64_t> Fields::integers_or_none(std::string_view key, int64_t low,
                                              int64_t high) const {
  std::vector<int64_t> result;
  if (!has(key)) return result;
  for (const Json& element : array(key)) {
    const std::string label = std::string(key) + "[" + std::to_string(result.size()) + "]";
    result.push_back(to_integer(element, label, low, high));
  }
  return result;
}

std::vector<std::string> Fields::texts_or_none(std::string_view key) const {
  std::vector<std::string> result;
  if (!has(key)) return result;
  for (const Json& element : array(key)) {
    if (!element.is_string()) fail(key, "wrong type", "an array of strings");
    result.push_back(element.get<std::string>());
  }
  return result;
}

Fields Fields::object(std::string_view key) const {
  const std::string path = prefix_.empty() ? std::string(key) : prefix_ + "." + std::string(key);
  return Fields(require(key, "an object"), where_, path);
}

}  // namespace farskip
