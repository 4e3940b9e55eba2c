#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace farskip {

// The messages of the bootstrap's connections. On the wire: the magic "FSKB", then little-endian a
// 16-bit format version, a 16-bit kind and a 64-bit payload length, then the payload.
enum class FrameKind : uint16_t {
  hello = 1,  // to rank 0: who comes
  welcome,    // from rank 0: every rank has come
  exchange,   // a rank's part in an exchange, or rank 0's answer to it
  abort,      // the job has failed; the reason as text
  left,       // from rank 0: another rank said goodbye
  goodbye,    // the sender ends in good order
};

inline constexpr uint16_t frame_version = 1;
inline constexpr size_t largest_payload = size_t{16} << 20;  // bytes

struct Frame {
  FrameKind kind = FrameKind::hello;
  std::string payload;
};

// Throws CommError for a payload above largest_payload.
std::string encode(const Frame& frame);

// Cuts what arrives on one connection into frames. Holds no more bytes than arrived, whatever
// lengths they claim. Thread rule: one thread at a time.
class FrameParser {
 public:
  explicit FrameParser(size_t payload_limit = largest_payload) : payload_limit_(payload_limit) {}

  void set_payload_limit(size_t bytes) { payload_limit_ = bytes; }
  void feed(std::string_view bytes) { buffer_.append(bytes); }
  // The next whole frame; nothing while more bytes are needed. Throws CommError, now and in every
  // later call, for bytes that are no frame, of another version, or longer than the limit.
  std::optional<Frame> next();
  // Whether the bytes begin as no version of this format does.
  bool is_foreign() const;

 private:
  std::string buffer_;
  size_t payload_limit_;
};

// Writes numbers, little-endian, and texts with their length.
class PayloadWriter {
 public:
  PayloadWriter& number(uint64_t value);
  PayloadWriter& text(std::string_view value);
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Reads them back; what it returns may be hostile, but lies within the payload. Throws CommError
// where the payload ends too early or, in finish, too late.
class PayloadReader {
 public:
  explicit PayloadReader(std::string_view bytes) : rest_(bytes) {}
  uint64_t number();
  std::string text();
  void finish() const;

 private:
  std::string_view take(uint64_t bytes);
  std::string_view rest_;
};

}  // namespace farskip
