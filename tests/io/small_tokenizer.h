#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "farskip/base/json.h"
#include "farskip/io/byte_alphabet.h"
#include "farskip/io/tokenizer.h"

namespace farskip {

// A tokenizer.json whose ids 0 to 255 are the bytes and then, in order, the results of the merges;
// pieces are what GPT-2's pattern finds.
inline Json small_tokenizer_json(const std::vector<std::pair<std::string, std::string>>& merges) {
  Json vocabulary = Json::object(), list = Json::array();
  for (int byte = 0; byte < 256; ++byte) {
    vocabulary[bytes_to_alphabet(std::string(1, static_cast<char>(byte)))] = byte;
  }
  for (const auto& [left, right] : merges) {
    const std::string a = bytes_to_alphabet(left), b = bytes_to_alphabet(right);
    list.push_back(a + " " + b);
    const auto next = vocabulary.size();
    if (!vocabulary.contains(a + b)) vocabulary[a + b] = next;
  }
  return {{"version", "1.0"},
          {"added_tokens", Json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", list}}}};
}

inline Json added_token_json(int id, const std::string& content, bool special = true) {
  return {{"id", id},        {"content", content}, {"special", special},  {"normalized", !special},
          {"lstrip", false}, {"rstrip", false},    {"single_word", false}};
}

inline std::unique_ptr<Tokenizer> tokenizer_from(const Json& json) {
  return std::make_unique<Tokenizer>(read_tokenizer_definition(json, "t.json"), "t.json");
}

}  // namespace farskip
