#include "farskip/io/tokenizer_definition.h"

#include <nlohmann/json.hpp>
#include <unordered_set>

#include "farskip/base/error.h"
#include "farskip/base/hash.h"

namespace farskip {
namespace {

// What GPT-2 splits by, and ByteLevel unless told otherwise.
constexpr const char* byte_level_expression =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

[[noreturn]] void unsupported(const std::string& where, const std::string& part,
                              const std::string& expected, const std::string& found) {
  throw UnsupportedError("this version does not read such a tokenizer",
                         {.where = where + ": " + part, .expected = expected, .found = found});
}

[[noreturn]] void wrong(const std::string& where, const std::string& expected,
                        const std::string& found) {
  throw ConfigError("wrong tokenizer", {.where = where, .expected = expected, .found = found});
}

std::string type_of(const Json& part, const std::string& where) {
  return require<std::string>(part, "type", where);
}

// The field as an object or array, by reference; null when missing.
const Json& field_of(const Json& object, const char* field) {
  static const Json missing;
  const auto found = object.find(field);
  return found == object.end() ? missing : *found;
}

// A token id of the file. Tables are as long as the largest id, so that one is bounded.
int32_t id_from(const Json& value, const std::string& where) {
  constexpr int64_t most = (1 << 22) - 1;
  const int64_t id = value.is_number_integer() ? value.get<int64_t>() : -1;
  if (id < 0 || id > most)
    wrong(where, "a token id, 0 to " + std::to_string(most), abbreviate(value));
  return static_cast<int32_t>(id);
}

void read_vocabulary(const Json& model, const std::string& where, TokenizerDefinition& result) {
  const Json& vocabulary = field_of(model, "vocab");
  if (!vocabulary.is_object() || vocabulary.empty()) {
    wrong(where + ": vocab", "an object of tokens and their ids", abbreviate(vocabulary));
  }
  std::unordered_set<int32_t> taken;
  result.vocabulary.reserve(vocabulary.size());
  for (const auto& [token, value] : vocabulary.items()) {
    const std::string place = where + ": vocab: " + abbreviate(token);
    const int32_t id = id_from(value, place);
    if (!taken.insert(id).second) wrong(place, "an id of its own", std::to_string(id) + " again");
    result.vocabulary.emplace(token, id);
  }
}

// "a b" or ["a", "b"].
std::pair<std::string, std::string> merge_from(const Json& merge, const std::string& where) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  }
  if (merge.is_string()) {
    const auto text = merge.get<std::string>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return {text.substr(0, space), text.substr(space + 1)};
    }
  }
  wrong(where, "two tokens, as \"a b\" or [\"a\", \"b\"]", abbreviate(merge));
}

void read_merges(const Json& model, const std::string& where, TokenizerDefinition& result) {
  const Json& merges = field_of(model, "merges");
  if (!merges.is_array()) wrong(where + ": merges", "an array", abbreviate(merges));
  result.merges.reserve(merges.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    const std::string place = where + ": merges[" + std::to_string(i) + "]";
    auto [left, right] = merge_from(merges[i], place);
    for (const std::string& token : {left, right, left + right}) {
      if (!result.vocabulary.contains(token)) {
        wrong(place, "tokens of the vocabulary", abbreviate(Json(token)));
      }
    }
    result.merges.emplace_back(std::move(left), std::move(right));
  }
}

void read_model(const Json& json, const std::string& file, TokenizerDefinition& result) {
  const Json& model = field_of(json, "model");
  const std::string where = file + ": model";
  if (!model.is_object()) wrong(where, "an object", abbreviate(model));
  if (type_of(model, where) != "BPE") unsupported(file, "model", "BPE", type_of(model, where));
  const std::optional<double> dropout = optional<double>(model, "dropout", where);
  if (dropout.value_or(0) != 0) unsupported(file, "model: dropout", "null", abbreviate(*dropout));
  for (const char* field : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const auto text = optional<std::string>(model, field, where).value_or("");
    if (!text.empty()) unsupported(where, field, "null", text);
  }
  if (optional<bool>(model, "byte_fallback", where).value_or(false)) {
    unsupported(where, "byte_fallback", "false", "true: a tokenizer of the SentencePiece kind");
  }
  result.ignore_merges = optional<bool>(model, "ignore_merges", where).value_or(false);
  read_vocabulary(model, where, result);
  read_merges(model, where, result);
}

void read_normalizer(const Json& normalizer, const std::string& where,
                     TokenizerDefinition& result) {
  if (normalizer.is_null()) return;
  const std::string type = type_of(normalizer, where);
  if (type == "Sequence") {
    for (const Json& part : require<Json>(normalizer, "normalizers", where)) {
      read_normalizer(part, where, result);
    }
  } else if (type == "NFC") {
    result.normal_forms.push_back(NormalForm::nfc);
  } else if (type == "NFD") {
    result.normal_forms.push_back(NormalForm::nfd);
  } else if (type == "NFKC") {
    result.normal_forms.push_back(NormalForm::nfkc);
  } else if (type == "NFKD") {
    result.normal_forms.push_back(NormalForm::nfkd);
  } else {
    unsupported(where, "type", "none, NFC, NFD, NFKC or NFKD", type);
  }
}

SplitBehavior behavior_from(const std::string& name, const std::string& where) {
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  wrong(where + ": behavior", "Isolated, Removed, Contiguous, MergedWithPrevious or MergedWithNext",
        name);
}

SplitRule split_rule_from(const Json& part, const std::string& where) {
  const Json& pattern = field_of(part, "pattern");
  SplitRule rule;
  if (pattern.is_object() && pattern.size() == 1 && pattern.begin()->is_string()) {
    rule.expression = pattern.begin()->get<std::string>();
    rule.is_literal = pattern.begin().key() == "String";
  }
  if (rule.expression.empty() || (!rule.is_literal && !pattern.contains("Regex"))) {
    wrong(where + ": pattern", "{\"Regex\": ...} or {\"String\": ...}", abbreviate(pattern));
  }
  rule.behavior = behavior_from(require<std::string>(part, "behavior", where), where);
  rule.invert = optional<bool>(part, "invert", where).value_or(false);
  return rule;
}

void read_pre_tokenizer(const Json& part, const std::string& where, bool is_last,
                        TokenizerDefinition& result) {
  constexpr const char* known = "Sequence, Split, Digits and, last of all, ByteLevel";
  if (part.is_null()) unsupported(where, "type", known, "none");
  const std::string type = type_of(part, where);
  auto& rules = result.pre_tokenizer;
  if (type == "Sequence") {
    const auto parts = require<Json>(part, "pretokenizers", where);
    if (parts.empty()) unsupported(where, "type", known, "an empty Sequence");
    for (size_t i = 0; i < parts.size(); ++i) {
      read_pre_tokenizer(parts[i], where + "[" + std::to_string(i) + "]",
                         is_last && i + 1 == parts.size(), result);
    }
  } else if ((type == "ByteLevel") != is_last) {
    unsupported(where, "type", known, type);
  } else if (type == "ByteLevel") {
    if (optional<bool>(part, "add_prefix_space", where).value_or(true)) {
      rules.emplace_back(PrefixSpaceRule{});
    }
    if (optional<bool>(part, "use_regex", where).value_or(true)) {
      rules.emplace_back(SplitRule{.expression = byte_level_expression});
    }
  } else if (type == "Split") {
    rules.emplace_back(split_rule_from(part, where));
  } else if (type == "Digits") {
    const bool individual = optional<bool>(part, "individual_digits", where).value_or(false);
    rules.emplace_back(
        SplitRule{.expression = R"(\p{N})",
                  .behavior = individual ? SplitBehavior::isolated : SplitBehavior::contiguous});
  } else {
    unsupported(where, "type", known, type);
  }
}

// Only what would decode otherwise than by the byte alphabet is refused.
void check_decoder(const Json& decoder, const std::string& where) {
  if (decoder.is_null()) return;
  const std::string type = type_of(decoder, where);
  if (type == "Sequence") {
    for (const Json& part : require<Json>(decoder, "decoders", where)) check_decoder(part, where);
  } else if (type != "ByteLevel") {
    unsupported(where, "type", "ByteLevel", type);
  }
}

AddedToken added_token_from(const Json& json, const std::string& where) {
  AddedToken token;
  token.content = require<std::string>(json, "content", where);
  if (token.content.empty()) wrong(where + ": content", "text", "none");
  token.id = id_from(field_of(json, "id"), where + ": id");
  if (optional<bool>(json, "single_word", where).value_or(false)) {
    unsupported(where, "single_word", "false", "true: " + abbreviate(Json(token.content)));
  }
  token.special = optional<bool>(json, "special", where).value_or(false);
  token.normalized = optional<bool>(json, "normalized", where).value_or(!token.special);
  token.strip_left = optional<bool>(json, "lstrip", where).value_or(false);
  token.strip_right = optional<bool>(json, "rstrip", where).value_or(false);
  return token;
}

void read_added_tokens(const Json& tokens, const std::string& file, TokenizerDefinition& result) {
  if (tokens.is_null()) return;
  if (!tokens.is_array()) wrong(file + ": added_tokens", "an array", abbreviate(tokens));
  std::unordered_set<int32_t> ids;
  std::unordered_set<std::string> contents;
  for (const auto& [token, id] : result.vocabulary) ids.insert(id);
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::string where = file + ": added_tokens[" + std::to_string(i) + "]";
    AddedToken token = added_token_from(tokens[i], where);
    if (!contents.insert(token.content).second) {
      wrong(where + ": content", "a token of its own", abbreviate(Json(token.content)) + " again");
    }
    const auto same = result.vocabulary.find(token.content);
    const bool is_in_vocabulary = same != result.vocabulary.end();
    if (is_in_vocabulary ? same->second != token.id : !ids.insert(token.id).second) {
      wrong(where + ": id",
            is_in_vocabulary ? std::to_string(same->second) + ", as in the vocabulary"
                             : "an id of its own",
            std::to_string(token.id));
    }
    result.added_tokens.push_back(std::move(token));
  }
}

// The special tokens of a template for one text: those before it and those behind it.
void read_template(const Json& part, const std::string& where, TokenizerDefinition& result) {
  const auto specials = require<Json>(part, "special_tokens", where);
  bool behind = false;
  for (const Json& piece : require<Json>(part, "single", where)) {
    if (piece.contains("Sequence")) {
      behind = true;
      continue;
    }
    const auto special = require<Json>(piece, "SpecialToken", where + ": single");
    const auto name = require<std::string>(special, "id", where + ": single");
    const auto token = require<Json>(specials, name, where + ": special_tokens");
    for (const Json& id : require<Json>(token, "ids", where + ": special_tokens: " + name)) {
      (behind ? result.suffix : result.prefix).push_back(id_from(id, where + ": special_tokens"));
    }
  }
}

void read_post_processor(const Json& part, const std::string& where, TokenizerDefinition& result) {
  if (part.is_null()) return;
  const std::string type = type_of(part, where);
  if (type == "Sequence") {
    for (const Json& processor : require<Json>(part, "processors", where)) {
      read_post_processor(processor, where, result);
    }
  } else if (type == "TemplateProcessing") {
    read_template(part, where, result);
  } else if (type != "ByteLevel") {
    result.post_processor_problem = type;
  }
}

// Of the parts themselves, not of the file: spaces and the order of keys do not matter.
uint64_t fingerprint_of(const Json& json) {
  Hasher hasher;
  for (const char* field : {"normalizer", "pre_tokenizer", "model", "added_tokens"}) {
    hasher.add(field).add(field_of(json, field).dump());
  }
  return hasher.value();
}

}  // namespace

TokenizerDefinition read_tokenizer_definition(const Json& json, const std::string& where) {
  if (!json.is_object()) wrong(where, "an object, as in a tokenizer.json", abbreviate(json));
  const auto version = optional<std::string>(json, "version", where).value_or("1.0");
  if (version != "1.0") unsupported(where, "version", "1.0", version);
  TokenizerDefinition result;
  read_model(json, where, result);
  read_normalizer(field_of(json, "normalizer"), where + ": normalizer", result);
  read_pre_tokenizer(field_of(json, "pre_tokenizer"), where + ": pre_tokenizer", true, result);
  check_decoder(field_of(json, "decoder"), where + ": decoder");
  read_added_tokens(field_of(json, "added_tokens"), where, result);
  read_post_processor(field_of(json, "post_processor"), where + ": post_processor", result);
  result.fingerprint = fingerprint_of(json);
  return result;
}

}  // namespace farskip
