#include "farskip/base/checksum.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <vector>

#include "farskip/base/descriptor.h"
#include "farskip/base/hash.h"

namespace farskip {
namespace {

uint64_t little_endian_word(const std::byte* bytes) {
  uint64_t word;
  std::memcpy(&word, bytes, sizeof word);
  if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
  return word;
}

}  // namespace

// The word is multiplied too: else one flipped bit could undo another one of the word before.
void Checksum::add_block(const std::byte* block) {
  for (size_t lane = 0; lane < lane_count; ++lane) {
    const uint64_t spread = little_endian_word(block + 8 * lane) * 0xBF58476D1CE4E5B9ULL;
    lanes_[lane] = (std::rotl(lanes_[lane], 27) ^ spread) * 0x9E3779B97F4A7C15ULL;
  }
}

Checksum& Checksum::add(std::span<const std::byte> bytes) {
  const size_t filled = size_ % block_bytes;
  size_ += bytes.size();
  if (filled > 0) {
    const size_t count = std::min(block_bytes - filled, bytes.size());
    std::copy_n(bytes.begin(), count, pending_.begin() + filled);
    if (filled + count < block_bytes) return *this;
    add_block(pending_.data());
    bytes = bytes.subspan(count);
  }
  for (; bytes.size() >= block_bytes; bytes = bytes.subspan(block_bytes)) add_block(bytes.data());
  std::copy(bytes.begin(), bytes.end(), pending_.begin());
  return *this;
}

uint64_t Checksum::value() const {
  Checksum padded = *this;
  const size_t filled = size_ % block_bytes;
  std::fill(padded.pending_.begin() + filled, padded.pending_.end(), std::byte{0});
  padded.add_block(padded.pending_.data());
  uint64_t value = splitmix64(size_);
  for (const uint64_t lane : padded.lanes_) value = splitmix64(value ^ lane);
  return value;
}

FileStamp stamp_of_file(const std::filesystem::path& path) {
  uint64_t size = 0;
  const Descriptor descriptor(open_regular(path, size));
  // Not mapped: an error of the disk must be an error here, not a signal.
  std::vector<std::byte> buffer(size_t{4} << 20);
  Checksum checksum;
  FileStamp stamp;
  while (true) {
    const ssize_t count = ::read(descriptor.get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_on_path(path, "can not read the file", errno);
    if (count == 0) break;
    checksum.add({buffer.data(), static_cast<size_t>(count)});
    stamp.bytes += static_cast<uint64_t>(count);
  }
  stamp.checksum = checksum.value();
  return stamp;
}

}  // namespace farskip
