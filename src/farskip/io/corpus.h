#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "farskip/io/token_file.h"
#include "farskip/io/tokenizer.h"

namespace farskip {

// The documents of a text one after the other: what stands between lines that equal the separator,
// with the line break at its end. Empty documents are left out. One thread.
class DocumentSplitter {
 public:
  // `text` must outlive the object; without a separator, or with an empty one, it is one document.
  DocumentSplitter(std::string_view text, std::string separator)
      : text_(text), separator_(std::move(separator)) {}

  // A view of the next document; nothing behind the last.
  std::optional<std::string_view> next();

 private:
  // Where the next separating line begins; the end of the text if there is none.
  size_t find_separator() const;

  std::string_view text_;
  std::string separator_;
  size_t position_ = 0;  // the start of a line
};

struct CorpusOptions {
  std::string separator = "\f";  // a line between documents; empty: every file is one
  std::optional<int32_t> end_of_document;
};

struct CorpusReport {
  TokenCounts counts;
  double unigram_entropy = 0;  // nats an id, of the ids' own frequencies in the file
};

// Encodes texts, each on as many threads as this process has cores, into one token file, whole or
// not at all. Progress goes to stderr on a terminal. Throws FileError for a text that is missing or
// not UTF-8 (with the offset in its file) and for what can not be written, and what
// Tokenizer::encode throws.
CorpusReport tokenize_corpus(const Tokenizer& tokenizer,
                             std::span<const std::filesystem::path> texts,
                             const std::filesystem::path& output, const CorpusOptions& options);

// The id that ends a text: <|endoftext|>, or else the eos_token of the tokenizer_config.json beside
// the tokenizer's file; nothing where neither tells. Throws FileError or ConfigError for a
// tokenizer_config.json that can not be read.
std::optional<int32_t> find_end_of_text(const Tokenizer& tokenizer,
                                        const std::filesystem::path& tokenizer_file);

}  // namespace farskip
