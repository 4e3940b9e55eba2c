#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <filesystem>
#include <span>
#include <string>

#include "farskip/base/checksum.h"
#include "farskip/io/safetensors.h"
#include "farskip/train/shards.h"

namespace farskip {

// What a rank keeps of a run of elements: the fp32 master weights and their moments, each
// [entry.count], on any device. m and v are both undefined for what is not trained by gradients.
struct StateShard {
  ShardEntry entry;
  at::Tensor master, m, v;
};

// The tensors of a shard in the order master, m, v, and what each is called in a file:
// "layer.2.experts.down[5][0:4096].master".
inline constexpr std::array<const char*, 3> state_parts = {"master", "m", "v"};
std::array<at::Tensor, 3> tensors_of(const StateShard& shard);
std::string state_tensor_name(const ShardEntry& entry, size_t part);

// Throws Error unless the tensors have the shape and dtype that is said here.
void check_shard(const StateShard& shard);

// Writes one rank's shards as a safetensors file, whole or not at all, and flushes it to the disk.
// Throws Error as check_shard, FileError for the disk or an entry that comes twice.
FileStamp write_state_file(const std::filesystem::path& path, std::span<const StateShard> shards);

// One rank's file, mapped. Const members may be called from any thread.
class StateFile {
 public:
  // Throws FileError for a file that is missing, malformed, or holds other tensors.
  explicit StateFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const ShardList& entries() const { return entries_; }

  // Elements [offset, offset + destination.numel()) of a part of entries()[entry], fp32, copied to
  // `destination` on any device. Throws FileError if the file has no such part of it.
  void read(size_t entry, size_t part, int64_t offset, const at::Tensor& destination) const;

 private:
  SafetensorsFile file_;
  ShardList entries_;
};

}  // namespace farskip
