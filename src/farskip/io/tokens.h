#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace farskip {

// Token ids of a batch of sequences, one after the other without padding.
struct TokenBatch {
  std::vector<int64_t> ids;      // [sum of lengths]
  std::vector<int64_t> lengths;  // [batch], each from 1 to width
  int64_t width = 0;             // of the padded batch that it was read from

  int64_t batch() const { return static_cast<int64_t>(lengths.size()); }
};

// Reads `input_ids` int64 [batch, width] and, where rows are shorter, `lengths` int64 [batch] from
// a safetensors file; other tensors are allowed. Throws FileError for a missing tensor, another
// dtype or shape, an empty batch, a length outside [1, width], or an id outside [0, vocabulary);
// ids behind a row's length are not looked at.
TokenBatch read_tokens(const std::filesystem::path& path, int64_t vocabulary);

// `count` token ids in [0, vocabulary) that follow a text without being its tokenization: each word
// (run of letters, digits, and bytes above 127) and each other character but white space is hashed
// to an id. Equal words get equal ids, so frequencies, and with them a router's imbalance, are
// those of language. The text starts over when it ends. Reads at most the first 256 MiB.
// Throws FileError for a file that is missing or has no words, ConfigError for count < 0 or
// vocabulary < 1.
std::vector<int64_t> tokens_from_text(const std::filesystem::path& path, int64_t count,
                                      int64_t vocabulary);

}  // namespace farskip
