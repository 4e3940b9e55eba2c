#include "farskip/io/tokens.h"

#include <string>
#include <string_view>

#include "farskip/base/error.h"
#include "farskip/base/files.h"
#include "farskip/base/hash.h"
#include "farskip/io/safetensors.h"

namespace farskip {
namespace {

// The values of an int64 tensor with the given number of dimensions. Throws FileError.
at::Tensor read_integers(const SafetensorsFile& file, const std::string& name, size_t dimensions,
                         const std::string& expected) {
  const StoredTensor& info = file.info(name);
  if (info.type != StoredType::i64 || info.shape.size() != dimensions || info.elements() == 0) {
    throw FileError("wrong tokens", {.where = file.path().string() + ": " + name,
                                     .expected = expected,
                                     .found = info.describe()});
  }
  return file.view(name);
}

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& place,
                       const std::string& summary, int64_t low, int64_t high, int64_t found) {
  throw FileError(summary, {.where = path.string() + ": " + place,
                            .expected = std::to_string(low) + " to " + std::to_string(high),
                            .found = std::to_string(found)});
}

bool is_word_byte(unsigned char byte) {
  return byte >= 0x80 || (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
         (byte >= 'A' && byte <= 'Z');
}

bool is_space(unsigned char byte) { return byte <= ' '; }

// Cuts the next word or sign off the front of the text; empty at its end.
std::string_view next_word(std::string_view& text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  size_t length = 0;
  while (length < text.size() && is_word_byte(text[length])) ++length;
  if (length == 0 && !text.empty()) length = 1;
  const std::string_view word = text.substr(0, length);
  text.remove_prefix(length);
  return word;
}

}  // namespace

TokenBatch read_tokens(const std::filesystem::path& path, int64_t vocabulary) {
  const SafetensorsFile file(path);
  const at::Tensor ids = read_integers(file, "input_ids", 2, "I64 [batch, length], not empty");
  TokenBatch batch;
  const int64_t rows = ids.size(0);
  batch.width = ids.size(1);
  batch.lengths.assign(static_cast<size_t>(rows), batch.width);
  if (file.contains("lengths")) {
    const at::Tensor lengths =
        read_integers(file, "lengths", 1, "I64 [" + std::to_string(rows) + "]");
    if (lengths.size(0) != rows) {
      fail(path, "lengths", "wrong number of lengths", rows, rows, lengths.size(0));
    }
    const auto* values = lengths.const_data_ptr<int64_t>();
    batch.lengths.assign(values, values + rows);
  }
  const auto* values = ids.const_data_ptr<int64_t>();
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t length = batch.lengths[static_cast<size_t>(row)];
    if (length < 1 || length > batch.width) {
      fail(path, "lengths[" + std::to_string(row) + "]", "wrong length", 1, batch.width, length);
    }
    for (int64_t column = 0; column < length; ++column) {
      const int64_t id = values[row * batch.width + column];
      if (id < 0 || id >= vocabulary) {
        fail(path, "input_ids[" + std::to_string(row) + ", " + std::to_string(column) + "]",
             "token is not in the vocabulary", 0, vocabulary - 1, id);
      }
      batch.ids.push_back(id);
    }
  }
  return batch;
}

std::vector<int64_t> tokens_from_text(const std::filesystem::path& path, int64_t count,
                                      int64_t vocabulary) {
  if (count < 0 || vocabulary < 1) {
    throw ConfigError("no tokens can be made",
                      {.expected = "count >= 0 and vocabulary >= 1",
                       .found = std::to_string(count) + " and " + std::to_string(vocabulary)});
  }
  const MappedFile file(path);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                              std::min<uint64_t>(file.size(), default_file_cap));
  std::vector<int64_t> ids;
  ids.reserve(static_cast<size_t>(std::min<int64_t>(count, 1 << 20)));
  std::string_view rest = text;
  while (static_cast<int64_t>(ids.size()) < count) {
    const std::string_view word = next_word(rest);
    if (!word.empty()) {
      const uint64_t hash = splitmix64(Hasher().add(word).value());
      ids.push_back(static_cast<int64_t>(hash % static_cast<uint64_t>(vocabulary)));
    } else if (ids.empty()) {
      throw FileError("text has no words", {.where = path.string(),
                                            .expected = "letters or signs",
                                            .found = std::to_string(text.size()) + " bytes"});
    } else {
      rest = text;
    }
  }
  return ids;
}

}  // namespace farskip
