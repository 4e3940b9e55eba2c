#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "farskip/base/json.h"

namespace farskip {

// Bounds that every real model is far below; they keep products of two of them inside int64_t,
// and of head count and head width inside int.
inline constexpr int64_t max_layers = 100'000;
inline constexpr int64_t max_width = int64_t{1} << 24;
inline constexpr int64_t max_heads = int64_t{1} << 16;
inline constexpr int64_t max_head_dim = int64_t{1} << 14;
inline constexpr int64_t max_experts = int64_t{1} << 20;
inline constexpr int64_t max_vocabulary = int64_t{1} << 28;
inline constexpr int64_t max_positions = int64_t{1} << 40;

// The fields of one JSON object, read with type and range checks. Every getter throws ConfigError
// naming source, field (dotted where nested), what was expected and what stands there. A null
// counts as absent, because config.json files use it so. Keeps a reference to the JSON.
class Fields {
 public:
  // Throws ConfigError if `object` is no JSON object.
  Fields(const Json& object, std::string where, std::string prefix = "");

  bool has(std::string_view key) const { return find(key) != nullptr; }
  // True if the field stands there as null.
  bool stated_null(std::string_view key) const;
  // The first of `keys` that is present; the last one if none is.
  std::string_view first_of(std::initializer_list<std::string_view> keys) const;

  // A JSON integer in [low, high]; 2048.0 is none.
  int64_t integer(std::string_view key, int64_t low, int64_t high) const;
  int64_t integer_or(std::string_view key, int64_t fallback, int64_t low, int64_t high) const;
  // An integer or float in [low, high].
  double number(std::string_view key, double low, double high) const;
  double number_or(std::string_view key, double fallback, double low, double high) const;
  bool flag_or(std::string_view key, bool fallback) const;
  std::string text(std::string_view key) const;
  std::string text_or(std::string_view key, std::string fallback) const;
  // Arrays; empty if absent. integers: each in [low, high].
  std::vector<int64_t> integers_or_none(std::string_view key, int64_t low, int64_t high) const;
  std::vector<std::string> texts_or_none(std::string_view key) const;
  // The object under `key`; has(key) must hold.
  Fields object(std::string_view key) const;
  // The array under `key`.
  const Json& array(std::string_view key) const;

  // "config.json: text_config.hidden_size", for errors.
  std::string place(std::string_view key) const;

  // Throws ConfigError about `key`, showing its value as found.
  [[noreturn]] void fail(std::string_view key, const std::string& summary,
                         const std::string& expected, const std::string& hint = "") const;

 private:
  const Json* find(std::string_view key) const;
  const Json& require(std::string_view key, const std::string& expected) const;
  int64_t to_integer(const Json& value, const std::string& label, int64_t low, int64_t high) const;

  const Json& object_;
  std::string where_;
  std::string prefix_;
};

}  // namespace farskip
