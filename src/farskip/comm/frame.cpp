#include "farskip/comm/frame.h"

#include "farskip/base/error.h"

namespace farskip {
namespace {

constexpr std::string_view magic = "FSKB";
constexpr size_t header_size = 16;  // bytes

void put(std::string& bytes, uint64_t value, int width) {
  for (int i = 0; i < width; ++i) bytes.push_back(static_cast<char>(value >> (8 * i) & 0xFF));
}

uint64_t get(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i > 0; --i) {
    value = value << 8 | static_cast<unsigned char>(bytes[i - 1]);
  }
  return value;
}

// Bytes of unknown origin, as hexadecimal digits.
std::string show(std::string_view bytes) {
  constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (const char byte : bytes.substr(0, header_size)) {
    text += digits[static_cast<unsigned char>(byte) >> 4];
    text += digits[static_cast<unsigned char>(byte) & 15];
  }
  return "bytes " + text;
}

[[noreturn]] void reject_payload(const std::string& found) {
  throw CommError("a malformed message",
                  {.where = "bootstrap", .expected = "a whole payload", .found = found});
}

}  // namespace

std::string encode(const Frame& frame) {
  if (frame.payload.size() > largest_payload) {
    throw CommError("too much for one message",
                    {.where = "bootstrap",
                     .expected = "at most " + std::to_string(largest_payload) + " bytes",
                     .found = std::to_string(frame.payload.size()) + " bytes"});
  }
  std::string bytes(magic);
  put(bytes, frame_version, 2);
  put(bytes, static_cast<uint64_t>(frame.kind), 2);
  put(bytes, frame.payload.size(), 8);
  return bytes + frame.payload;
}

bool FrameParser::is_foreign() const {
  const std::string_view begin = std::string_view(buffer_).substr(0, magic.size());
  return begin != magic.substr(0, begin.size());
}

std::optional<Frame> FrameParser::next() {
  const std::string_view bytes = buffer_;
  if (is_foreign()) {
    throw CommError("this is no farskip process", {.where = "bootstrap",
                                                   .expected = "a message of farskip's bootstrap",
                                                   .found = show(bytes)});
  }
  if (bytes.size() < header_size) return std::nullopt;
  const uint64_t version = get(bytes.substr(4, 2)), length = get(bytes.substr(8, 8));
  if (version != frame_version) {
    throw CommError("a peer speaks another version",
                    {.where = "bootstrap",
                     .expected = "format version " + std::to_string(frame_version),
                     .found = "version " + std::to_string(version),
                     .hint = "run the same farskip on every rank"});
  }
  if (length > payload_limit_) {
    throw CommError("a message claims to be too long",
                    {.where = "bootstrap",
                     .expected = "at most " + std::to_string(payload_limit_) + " bytes",
                     .found = std::to_string(length)});
  }
  if (bytes.size() - header_size < length) return std::nullopt;
  Frame frame{static_cast<FrameKind>(get(bytes.substr(6, 2))),
              buffer_.substr(header_size, static_cast<size_t>(length))};
  buffer_.erase(0, header_size + static_cast<size_t>(length));
  return frame;
}

PayloadWriter& PayloadWriter::number(uint64_t value) {
  put(bytes_, value, 8);
  return *this;
}

PayloadWriter& PayloadWriter::text(std::string_view value) {
  number(value.size());
  bytes_ += value;
  return *this;
}

std::string_view PayloadReader::take(uint64_t bytes) {
  if (bytes > rest_.size()) {
    reject_payload(std::to_string(bytes) + " bytes claimed, " + std::to_string(rest_.size()) +
                   " there");
  }
  const std::string_view taken = rest_.substr(0, static_cast<size_t>(bytes));
  rest_.remove_prefix(static_cast<size_t>(bytes));
  return taken;
}

uint64_t PayloadReader::number() { return get(take(8)); }

std::string PayloadReader::text() { return std::string(take(number())); }

void PayloadReader::finish() const {
  if (!rest_.empty()) reject_payload(std::to_string(rest_.size()) + " bytes too many");
}

}  // namespace farskip
