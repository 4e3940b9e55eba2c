#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "farskip/base/files.h"
#include "farskip/io/safetensors_header.h"

namespace farskip {

// A safetensors file mapped read-only. Cheap to copy: copies and views share the mapping, which
// lives as long as the last of them. All members are const and may be called from any thread.
class SafetensorsFile {
 public:
  // Throws FileError for a file that is missing or malformed.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return mapping_->path(); }
  const std::vector<StoredTensor>& tensors() const { return header_->tensors; }
  const std::map<std::string, std::string>& metadata() const { return header_->metadata; }

  bool contains(const std::string& name) const { return index_->count(name) != 0; }
  // Throws FileError if there is no such tensor.
  const StoredTensor& info(const std::string& name) const;
  // The tensor's bytes, little-endian, row-major. Throws FileError as info.
  std::span<const std::byte> bytes(const std::string& name) const;
  // The tensor without a copy, except where the file keeps it at an address that its type can not
  // have; then a copy. Must not be written to: the memory is read-only. Throws FileError as info.
  at::Tensor view(const std::string& name) const;
  // Tells the system to fetch bytes [begin, end) of the tensor from the disk, without waiting.
  void prefetch(const std::string& name, size_t begin, size_t end) const;
  // Lets the system drop the tensor's pages from memory; reading them again is slow, not wrong.
  void release(const std::string& name) const;

 private:
  std::shared_ptr<const MappedFile> mapping_;
  std::shared_ptr<const SafetensorsHeader> header_;
  std::shared_ptr<const std::unordered_map<std::string, size_t>> index_;  // name -> tensors()[i]
};

struct NamedTensor {
  std::string name;
  at::Tensor tensor;  // any device, any strides
};

// Writes a safetensors file, whole or not at all; an older file stays until then. Tensors are
// copied one at a time, and only those that are not contiguous on the CPU. Throws FileError (disk,
// repeated name) or UnsupportedError (a dtype that the format lacks).
void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

at::ScalarType scalar_type_of(StoredType type);
// Throws UnsupportedError for a dtype that the format, or this version, does not know.
StoredType stored_type_of(at::ScalarType type);

}  // namespace farskip
