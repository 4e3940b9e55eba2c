#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "farskip/base/files.h"

namespace farskip {

// Token files hold the ids of a corpus, one after the other:
//   header            64 bytes: "farskip tokens", version, bytes of an id, vocabulary, fingerprint
//   of
//                     the tokenizer, id that ends a document, checksum of what precedes
//   ids               uint16, or uint32 where the vocabulary has more than 65,536; zeros to a
//                     multiple of 8 bytes
//   document starts   uint64 each: the index of a document's first id
//   footer            48 bytes: ids, documents, bytes of text, checksum of ids and starts, checksum
//                     of header and footer, end mark
// All of it little-endian. A file that was cut off lacks its footer.

// What a token file says of where its ids come from.
struct TokenSource {
  int64_t vocabulary = 0;                  // ids are below it; at most 2^31 - 1
  uint64_t tokenizer_fingerprint = 0;      // Tokenizer::fingerprint
  std::optional<int32_t> end_of_document;  // stands behind every document
};

struct TokenCounts {
  uint64_t ids = 0;  // with those that end documents
  uint64_t documents = 0;
  uint64_t text_bytes = 0;  // of the documents that were encoded
};

// What the writer of write_token_file adds documents to. One thread.
class TokenSink {
 public:
  TokenSink(const TokenSink&) = delete;
  TokenSink& operator=(const TokenSink&) = delete;

  // Appends a document of `text_bytes` bytes and the id that ends it. Throws ConfigError for an id
  // outside the vocabulary; FileError as OutputFile.
  void add_document(std::span<const int32_t> ids, uint64_t text_bytes);
  const TokenCounts& counts() const { return counts_; }

 private:
  friend TokenCounts write_token_file(const std::filesystem::path&, const TokenSource&,
                                      const std::function<void(TokenSink&)>&);
  TokenSink(OutputFile& file, const TokenSource& source);

  void add(int32_t id);
  void flush();
  void finish();

  OutputFile& file_;
  const TokenSource& source_;
  uint64_t header_checksum_ = 0;
  TokenCounts counts_;
  std::vector<uint64_t> starts_;
  std::vector<std::byte> buffer_;  // ids that are not in the file yet
  uint64_t checksum_ = 0;
};

// Writes a token file, whole or not at all, while `writer` makes its documents. Throws ConfigError
// for a vocabulary that is empty or too large, or an end of document outside it; FileError; and
// what `writer` throws.
TokenCounts write_token_file(const std::filesystem::path& path, const TokenSource& source,
                             const std::function<void(TokenSink&)>& writer);

// Where the parts of a token file lie, in bytes from its start, and what it says of itself.
struct TokenLayout {
  TokenSource source;
  TokenCounts counts;
  uint64_t bytes_per_id = 2;  // 2 or 4
  uint64_t ids_begin = 0, starts_begin = 0, contents_end = 0;
  uint64_t contents_checksum = 0;
};

// Reads and checks header and footer of a whole token file. Throws FileError that names `path` for
// one that is of another kind or version, truncated, or corrupt there. Without state, so that it
// can be fuzzed alone.
TokenLayout parse_token_file(std::span<const std::byte> file, const std::string& path);

// A token file, mapped: ids are read from the disk when they are asked for. Const members may be
// called from any thread.
class TokenFile {
 public:
  // Checks header and footer, not the contents. Throws FileError.
  explicit TokenFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return mapping_.path(); }
  const TokenSource& source() const { return layout_.source; }
  const TokenCounts& counts() const { return layout_.counts; }
  uint64_t size() const { return layout_.counts.ids; }
  uint64_t bytes_per_id() const { return layout_.bytes_per_id; }

  // Copies the ids from index `begin` on. Throws Error when the file has not so many, FileError for
  // an id outside the vocabulary.
  void read(uint64_t begin, std::span<int64_t> ids) const;
  // The index of each document's first id. Only verify makes sure that they are in order.
  std::span<const uint64_t> document_starts() const;

  // Reads all contents against their checksum. Throws FileError for contents that changed, ids
  // outside the vocabulary, and starts that are out of order.
  void verify() const;

 private:
  MappedFile mapping_;
  TokenLayout layout_;
};

}  // namespace farskip
