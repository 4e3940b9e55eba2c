#include "farskip/io/tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "farskip/base/error.h"
#include "farskip/io/byte_alphabet.h"
#include "farskip/io/utf8.h"
#include "farskip/io/word_cache.h"

namespace farskip {
namespace {

// Normalizing may make a text four times as long, and the model counts bytes of a piece in int32.
constexpr size_t most_bytes = size_t{512} << 20;

std::string normalize(std::string_view text, const std::vector<NormalForm>& forms) {
  std::string result(text);
  for (const NormalForm form : forms) result = normalize(result, form);
  return result;
}

// The texts by which the added tokens that are, or are not, looked for in normalized text are
// found.
std::vector<std::string> contents_of(const TokenizerDefinition& definition, bool normalized) {
  std::vector<std::string> contents;
  for (const AddedToken& token : definition.added_tokens) {
    if (token.normalized != normalized) {
      contents.emplace_back();
    } else {
      contents.push_back(normalized ? normalize(token.content, definition.normal_forms)
                                    : token.content);
    }
  }
  return contents;
}

}  // namespace

struct Tokenizer::Workspace {
  explicit Workspace(const PreTokenizer& pre_tokenizer) : pieces(pre_tokenizer) {}

  PreTokenizer::Workspace pieces;
  BytePairModel::Workspace model;
  WordCache words;
  std::vector<AddedTokenMatcher::Part> raw_parts, normalized_parts;
  std::string normalized;
};

// A workspace for as long as the object lives: an idle one, or a new one.
class Tokenizer::Lease {
 public:
  explicit Lease(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
    const std::lock_guard lock(tokenizer.mutex_);
    if (tokenizer.idle_.empty()) {
      workspace_ = std::make_unique<Workspace>(tokenizer.pre_tokenizer_);
    } else {
      workspace_ = std::move(tokenizer.idle_.back());
      tokenizer.idle_.pop_back();
    }
  }
  ~Lease() {
    const std::lock_guard lock(tokenizer_.mutex_);
    tokenizer_.idle_.push_back(std::move(workspace_));
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  Workspace& workspace() { return *workspace_; }

 private:
  const Tokenizer& tokenizer_;
  std::unique_ptr<Workspace> workspace_;
};

Tokenizer::Tokenizer(const std::filesystem::path& file)
    : Tokenizer(read_tokenizer_definition(read_json_file(file), file.string()), file.string()) {}

Tokenizer::Tokenizer(const TokenizerDefinition& definition, const std::string& where)
    : normal_forms_(definition.normal_forms),
      raw_matcher_(definition.added_tokens, contents_of(definition, false)),
      normalized_matcher_(definition.added_tokens, contents_of(definition, true)),
      pre_tokenizer_(definition.pre_tokenizer, where),
      model_(definition),
      prefix_(definition.prefix),
      suffix_(definition.suffix),
      post_processor_problem_(definition.post_processor_problem),
      fingerprint_(definition.fingerprint) {
  if (!normal_forms_.empty()) normalize("", normal_forms_);  // throws where this build can not
  add_tokens(definition, where);
}

Tokenizer::~Tokenizer() = default;

void Tokenizer::add_tokens(const TokenizerDefinition& definition, const std::string& where) {
  const auto add = [&](int32_t id, std::string bytes, bool special) {
    tokens_.resize(std::max(tokens_.size(), static_cast<size_t>(id) + 1));
    tokens_[static_cast<size_t>(id)] = {std::move(bytes), true, special};
  };
  for (const auto& [token, id] : definition.vocabulary) {
    add(id, bytes_from_alphabet(token).value_or(token), false);
    ids_.emplace(token, id);
  }
  for (const AddedToken& token : definition.added_tokens) {
    add(token.id, token.content, token.special);
    ids_.emplace(token.content, token.id);
  }
  for (const std::vector<int32_t>* ids : {&prefix_, &suffix_}) {
    for (const int32_t id : *ids) {
      if (static_cast<size_t>(id) < tokens_.size() && tokens_[static_cast<size_t>(id)].exists) {
        continue;
      }
      throw ConfigError("wrong tokenizer", {.where = where + ": post_processor: special_tokens",
                                            .expected = "ids of the vocabulary",
                                            .found = std::to_string(id)});
    }
  }
}

void Tokenizer::encode_plain(std::string_view text, Workspace& workspace,
                             std::vector<int32_t>& ids) const {
  for (const std::string_view word : pre_tokenizer_.split(text, workspace.pieces)) {
    if (const auto known = workspace.words.find(word)) {
      ids.insert(ids.end(), known->begin(), known->end());
      continue;
    }
    const size_t begin = ids.size();
    model_.encode(word, ids, workspace.model);
    workspace.words.put(word, std::span(ids).subspan(begin));
  }
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, EncodeOptions options) const {
  if (text.size() > most_bytes) {
    throw UnsupportedError("text is too long to be encoded at once",
                           {.where = "tokenizer",
                            .expected = "at most " + std::to_string(most_bytes) + " bytes",
                            .found = std::to_string(text.size())});
  }
  if (options.special_tokens && !post_processor_problem_.empty()) {
    throw UnsupportedError("the special tokens around a text are not known",
                           {.where = "tokenizer: post_processor",
                            .expected = "TemplateProcessing",
                            .found = post_processor_problem_});
  }
  require_utf8(text, "text");
  std::vector<int32_t> ids;
  if (options.special_tokens) ids = prefix_;
  Lease lease(*this);
  Workspace& workspace = lease.workspace();
  workspace.raw_parts.clear();
  raw_matcher_.split(text, workspace.raw_parts);
  for (const AddedTokenMatcher::Part& raw : workspace.raw_parts) {
    if (raw.id >= 0) {
      ids.push_back(raw.id);
      continue;
    }
    std::string_view plain = raw.text;
    if (!normal_forms_.empty()) plain = workspace.normalized = normalize(plain, normal_forms_);
    workspace.normalized_parts.clear();
    normalized_matcher_.split(plain, workspace.normalized_parts);
    for (const AddedTokenMatcher::Part& part : workspace.normalized_parts) {
      if (part.id >= 0) {
        ids.push_back(part.id);
      } else {
        encode_plain(part.text, workspace, ids);
      }
    }
  }
  if (options.special_tokens) ids.insert(ids.end(), suffix_.begin(), suffix_.end());
  return ids;
}

const Tokenizer::Token& Tokenizer::token(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= tokens_.size() ||
      !tokens_[static_cast<size_t>(id)].exists) {
    throw ConfigError("id is not in the vocabulary",
                      {.where = "tokenizer",
                       .expected = "0 to " + std::to_string(vocabulary_size() - 1),
                       .found = std::to_string(id)});
  }
  return tokens_[static_cast<size_t>(id)];
}

std::string_view Tokenizer::bytes_of(int32_t id) const { return token(id).bytes; }

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::string text;
  for (const int32_t id : ids) {
    const Token& next = token(id);
    if (!(skip_special_tokens && next.special)) text += next.bytes;
  }
  return text;
}

std::optional<int32_t> Tokenizer::id_of(std::string_view token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

}  // namespace farskip
