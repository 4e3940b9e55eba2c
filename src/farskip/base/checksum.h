#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace farskip {

// An incremental checksum of 64 bits, at the speed of memory, the same however the bytes are cut
// into calls and on every machine; against damage, never against an adversary. Two contents of one
// length that differ within one aligned group of eight bytes always differ in it, any others but
// once in about 2^64. One thread.
class Checksum {
 public:
  Checksum& add(std::span<const std::byte> bytes);
  uint64_t value() const;

 private:
  static constexpr size_t lane_count = 4, block_bytes = 8 * lane_count;

  void add_block(const std::byte* block);

  // Four independent chains, so that one does not wait for another; each step is a bijection of
  // the chain and of the word that it takes in.
  std::array<uint64_t, lane_count> lanes_ = {0x243F6A8885A308D3ULL, 0x13198A2E03707344ULL,
                                             0xA4093822299F31D0ULL, 0x082EFA98EC4E6C89ULL};
  std::array<std::byte, block_bytes> pending_{};
  uint64_t size_ = 0;  // bytes so far; the last size_ % block_bytes of them are pending
};

// What a file holds, in short.
struct FileStamp {
  uint64_t bytes = 0;
  uint64_t checksum = 0;
  bool operator==(const FileStamp&) const = default;
};

// Reads a whole file for its stamp, in pieces. Throws FileError when it is missing, unreadable or
// no regular file. Any thread.
FileStamp stamp_of_file(const std::filesystem::path& path);

}  // namespace farskip
