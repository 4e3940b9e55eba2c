#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "farskip/base/json.h"
#include "farskip/io/added_tokens.h"
#include "farskip/io/byte_pair_model.h"
#include "farskip/io/pre_tokenizer.h"
#include "farskip/io/tokenizer_definition.h"

namespace farskip {

struct EncodeOptions {
  bool special_tokens = false;  // those that the tokenizer's template puts around a text
};

// A byte-level BPE tokenizer as in Hugging Face's tokenizer.json (GPT-2, Llama 3, Qwen, DeepSeek
// and their like); ids are those of the `tokenizers` library, except for characters newer than the
// Unicode tables of PCRE2. Truncation and padding that the file asks for are left to the caller.
// Const members may be called from any thread; threads do not wait for each other.
class Tokenizer {
 public:
  // Throws FileError for a file that is missing or no JSON, and what read_tokenizer_definition
  // throws.
  explicit Tokenizer(const std::filesystem::path& file);
  Tokenizer(const TokenizerDefinition& definition, const std::string& where);
  ~Tokenizer();

  // The ids of a text of at most 512 MiB. Throws FileError with the offset of the first byte
  // that is not UTF-8; UnsupportedError for a longer text, for a byte that has no token, or for
  // special tokens that are not a template's; Error for a text on which a pattern takes too long.
  std::vector<int32_t> encode(std::string_view text, EncodeOptions options = {}) const;

  // The text of some ids, in UTF-8 if they were not cut inside a character. Throws ConfigError for
  // an id that is not in the vocabulary.
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = false) const;
  // The bytes that one id stands for. Throws ConfigError as decode.
  std::string_view bytes_of(int32_t id) const;

  // One more than the largest id.
  int64_t vocabulary_size() const { return static_cast<int64_t>(tokens_.size()); }
  // The id of a token as tokenizer.json has it: an added token's content, or an entry of the
  // vocabulary in the byte alphabet.
  std::optional<int32_t> id_of(std::string_view token) const;

  // The same for files that give the same ids; of all that decides them.
  uint64_t fingerprint() const { return fingerprint_; }

 private:
  struct Token {
    std::string bytes;
    bool exists = false, special = false;
  };
  struct Workspace;
  class Lease;
  struct TextHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };

  void add_tokens(const TokenizerDefinition& definition, const std::string& where);
  const Token& token(int32_t id) const;
  void encode_plain(std::string_view text, Workspace& workspace, std::vector<int32_t>& ids) const;

  std::vector<Token> tokens_;  // by id
  std::unordered_map<std::string, int32_t, TextHash, std::equal_to<>> ids_;
  std::vector<NormalForm> normal_forms_;
  AddedTokenMatcher raw_matcher_, normalized_matcher_;
  PreTokenizer pre_tokenizer_;
  BytePairModel model_;
  std::vector<int32_t> prefix_, suffix_;
  std::string post_processor_problem_;
  uint64_t fingerprint_;

  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Workspace>> idle_;  // not in use by any thread
};

}  // namespace farskip
