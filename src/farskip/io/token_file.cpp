#include "farskip/io/token_file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <string>

#include "farskip/base/error.h"
#include "farskip/base/hash.h"

namespace farskip {
namespace {

static_assert(std::endian::native == std::endian::little, "token files are mapped as they are");

constexpr std::array<char, 16> magic = {'f', 'a', 'r', 's', 'k', 'i', 'p',
                                        ' ', 't', 'o', 'k', 'e', 'n', 's'};
constexpr uint32_t format_version = 1;
constexpr uint64_t end_mark = 0x646E6520736E6B74;  // "tkns end"
constexpr int64_t most_vocabulary = std::numeric_limits<int32_t>::max();
constexpr size_t buffer_bytes = size_t{1} << 20;

struct Header {
  std::array<char, 16> magic;
  uint32_t version, bytes_per_id;
  int64_t vocabulary;
  uint64_t tokenizer_fingerprint;
  int64_t end_of_document;  // -1: none
  uint64_t reserved;
  uint64_t checksum;  // of the fields above
};
static_assert(sizeof(Header) == 64);

struct Footer {
  uint64_t ids, documents, text_bytes, contents_checksum;
  uint64_t checksum;  // of the header's and the fields above
  uint64_t end_mark;
};
static_assert(sizeof(Footer) == 48);

template <typename T>
std::span<const std::byte> bytes_of(const T& object) {
  return std::as_bytes(std::span(&object, 1));
}

template <typename T>
T read_object(std::span<const std::byte> file, size_t begin) {
  T object;
  std::memcpy(&object, file.data() + begin, sizeof object);
  return object;
}

// Continues a checksum over bytes whose number is a multiple of 8. One word that changes always
// changes it: each step is a bijection.
uint64_t add_to_checksum(uint64_t checksum, std::span<const std::byte> bytes) {
  for (size_t i = 0; i < bytes.size(); i += sizeof(uint64_t)) {
    checksum = splitmix64(checksum ^ read_object<uint64_t>(bytes, i));
  }
  return checksum;
}

uint64_t checksum_of(const Header& header) {
  return add_to_checksum(0, bytes_of(header).first(offsetof(Header, checksum)));
}

uint64_t checksum_of(const Footer& footer, uint64_t header_checksum) {
  return add_to_checksum(header_checksum, bytes_of(footer).first(offsetof(Footer, checksum)));
}

uint64_t bytes_per_id_of(int64_t vocabulary) { return vocabulary <= 1 << 16 ? 2 : 4; }

uint64_t padded(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

[[noreturn]] void fail(const std::string& path, const std::string& summary, std::string expected,
                       std::string found, std::string hint = {}) {
  throw FileError(summary, {.where = path,
                            .expected = std::move(expected),
                            .found = std::move(found),
                            .hint = std::move(hint)});
}

void check_source(const TokenSource& source) {
  if (source.vocabulary < 1 || source.vocabulary > most_vocabulary) {
    throw ConfigError("wrong vocabulary for a token file",
                      {.where = {},
                       .expected = "1 to " + std::to_string(most_vocabulary),
                       .found = std::to_string(source.vocabulary)});
  }
  const int64_t end = source.end_of_document.value_or(0);
  if (end < 0 || end >= source.vocabulary) {
    throw ConfigError("end of document is not in the vocabulary",
                      {.where = {},
                       .expected = "0 to " + std::to_string(source.vocabulary - 1),
                       .found = std::to_string(end)});
  }
}

Header read_header(std::span<const std::byte> file, const std::string& path) {
  if (file.size() < sizeof(Header)) {
    fail(path, "not a token file",
         "at least " + std::to_string(sizeof(Header) + sizeof(Footer)) + " bytes",
         std::to_string(file.size()));
  }
  const auto header = read_object<Header>(file, 0);
  if (header.magic != magic) {
    fail(path, "not a token file", "\"farskip tokens\" at its start", "something else",
         "make one with farskip tokenize");
  }
  if (header.version != format_version) {
    fail(path, "token file of another version", std::to_string(format_version),
         std::to_string(header.version), "tokenize the text again");
  }
  if (header.checksum != checksum_of(header)) {
    fail(path, "header of the token file is corrupt", "its checksum", "another");
  }
  // A checksum says that nothing changed, not that it made sense.
  if (header.vocabulary < 1 || header.vocabulary > most_vocabulary ||
      header.bytes_per_id != bytes_per_id_of(header.vocabulary) || header.end_of_document < -1 ||
      header.end_of_document >= header.vocabulary) {
    fail(path, "header of the token file contradicts itself",
         "ids of 2 or 4 bytes that hold the vocabulary",
         std::to_string(header.bytes_per_id) + " bytes, vocabulary " +
             std::to_string(header.vocabulary) + ", end of document " +
             std::to_string(header.end_of_document));
  }
  return header;
}

Footer read_footer(std::span<const std::byte> file, const Header& header, const std::string& path) {
  const size_t contents = file.size() - sizeof(Header);
  const auto footer = contents < sizeof(Footer)
                          ? Footer{}
                          : read_object<Footer>(file, file.size() - sizeof(Footer));
  if (footer.end_mark != end_mark || footer.checksum != checksum_of(footer, header.checksum)) {
    fail(path, "token file is truncated or corrupt", "an intact footer at its end", "none",
         "copy it or tokenize the text again");
  }
  // Divisions, since products of what a file says may overflow.
  const uint64_t body = contents - sizeof(Footer);
  const bool fits = footer.documents <= body / 8 && footer.ids <= body / header.bytes_per_id &&
                    padded(footer.ids * header.bytes_per_id) + 8 * footer.documents == body;
  if (!fits) {
    fail(path, "token file has another size than its footer says",
         std::to_string(footer.ids) + " ids and " + std::to_string(footer.documents) +
             " document starts",
         std::to_string(body) + " bytes for them");
  }
  return footer;
}

}  // namespace

TokenSink::TokenSink(OutputFile& file, const TokenSource& source) : file_(file), source_(source) {
  Header header{.magic = magic,
                .version = format_version,
                .bytes_per_id = static_cast<uint32_t>(bytes_per_id_of(source.vocabulary)),
                .vocabulary = source.vocabulary,
                .tokenizer_fingerprint = source.tokenizer_fingerprint,
                .end_of_document = source.end_of_document.value_or(-1)};
  header.checksum = checksum_of(header);
  header_checksum_ = header.checksum;
  file_.write(bytes_of(header));
  buffer_.reserve(buffer_bytes);
}

void TokenSink::add(int32_t id) {
  if (id < 0 || id >= source_.vocabulary) {
    throw ConfigError("id is not in the vocabulary of the token file",
                      {.where = "id " + std::to_string(counts_.ids),
                       .expected = "0 to " + std::to_string(source_.vocabulary - 1),
                       .found = std::to_string(id)});
  }
  const auto bytes = bytes_of(id).first(bytes_per_id_of(source_.vocabulary));
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  if (buffer_.size() >= buffer_bytes) flush();
  ++counts_.ids;
}

void TokenSink::add_document(std::span<const int32_t> ids, uint64_t text_bytes) {
  starts_.push_back(counts_.ids);
  for (const int32_t id : ids) add(id);
  if (source_.end_of_document) add(*source_.end_of_document);
  ++counts_.documents;
  counts_.text_bytes += text_bytes;
}

void TokenSink::flush() {
  buffer_.resize(padded(buffer_.size()));
  checksum_ = add_to_checksum(checksum_, buffer_);
  file_.write(buffer_);
  buffer_.clear();
}

void TokenSink::finish() {
  flush();
  const auto starts = std::as_bytes(std::span(starts_));
  checksum_ = add_to_checksum(checksum_, starts);
  file_.write(starts);
  Footer footer{.ids = counts_.ids,
                .documents = counts_.documents,
                .text_bytes = counts_.text_bytes,
                .contents_checksum = checksum_,
                .end_mark = end_mark};
  footer.checksum = checksum_of(footer, header_checksum_);
  file_.write(bytes_of(footer));
}

TokenCounts write_token_file(const std::filesystem::path& path, const TokenSource& source,
                             const std::function<void(TokenSink&)>& writer) {
  check_source(source);
  TokenCounts counts;
  write_file_atomically(path, [&](OutputFile& file) {
    TokenSink sink(file, source);
    writer(sink);
    sink.finish();
    counts = sink.counts();
  });
  return counts;
}

TokenLayout parse_token_file(std::span<const std::byte> file, const std::string& path) {
  const Header header = read_header(file, path);
  const Footer footer = read_footer(file, header, path);
  TokenLayout layout{
      .source = {.vocabulary = header.vocabulary,
                 .tokenizer_fingerprint = header.tokenizer_fingerprint},
      .counts = {.ids = footer.ids, .documents = footer.documents, .text_bytes = footer.text_bytes},
      .bytes_per_id = header.bytes_per_id,
      .ids_begin = sizeof(Header),
      .starts_begin = sizeof(Header) + padded(footer.ids * header.bytes_per_id),
      .contents_end = file.size() - sizeof(Footer),
      .contents_checksum = footer.contents_checksum};
  if (header.end_of_document >= 0) {
    layout.source.end_of_document = static_cast<int32_t>(header.end_of_document);
  }
  return layout;
}

TokenFile::TokenFile(const std::filesystem::path& path)
    : mapping_(path), layout_(parse_token_file(mapping_.bytes(), path.string())) {}

void TokenFile::read(uint64_t begin, std::span<int64_t> ids) const {
  if (begin > size() || ids.size() > size() - begin) {
    throw Error("token file has not so many ids",
                {.where = path().string(),
                 .expected = std::to_string(begin) + " and " + std::to_string(ids.size()) + " more",
                 .found = std::to_string(size())});
  }
  const auto stored = mapping_.bytes().subspan(layout_.ids_begin + begin * bytes_per_id());
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = bytes_per_id() == 2 ? int64_t{read_object<uint16_t>(stored, 2 * i)}
                                 : int64_t{read_object<uint32_t>(stored, 4 * i)};
    if (ids[i] >= source().vocabulary) {
      fail(path().string() + ": id " + std::to_string(begin + i), "id is not in the vocabulary",
           "0 to " + std::to_string(source().vocabulary - 1), std::to_string(ids[i]),
           "farskip tokenize --check reads the whole file");
    }
  }
}

std::span<const uint64_t> TokenFile::document_starts() const {
  // Aligned: a mapping begins at a page, and starts_begin is a multiple of 8.
  return {reinterpret_cast<const uint64_t*>(mapping_.bytes().data() + layout_.starts_begin),
          counts().documents};
}

void TokenFile::verify() const {
  const auto contents = mapping_.bytes().first(layout_.contents_end).subspan(layout_.ids_begin);
  if (add_to_checksum(0, contents) != layout_.contents_checksum) {
    fail(path().string(), "contents of the token file are corrupt", "their checksum", "another",
         "copy it or tokenize the text again");
  }
  std::vector<int64_t> ids(std::min<uint64_t>(size(), 1 << 16));
  for (uint64_t begin = 0; begin < size(); begin += ids.size()) {
    read(begin, std::span(ids).first(std::min<uint64_t>(ids.size(), size() - begin)));
  }
  const auto starts = document_starts();
  const bool in_order = std::is_sorted(starts.begin(), starts.end()) &&
                        (starts.empty() || (starts.front() == 0 && starts.back() <= size()));
  if (!in_order) fail(path().string(), "document starts are wrong", "ascending from 0", "others");
}

}  // namespace farskip
