#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "farskip/io/safetensors.h"
#include "farskip/model/config.h"

namespace farskip {

// A Hugging Face checkpoint folder: config.json and model.safetensors, or the shards that
// model.safetensors.index.json names. Tensors go by their Hugging Face names, wherever they lie.
// FP8 weights with one scale per block (NAME_scale_inv) are dequantised when they are read.
// Const members may be called from any thread.
class Checkpoint {
 public:
  // Maps every shard and checks headers and index; reads no weights. Throws FileError for a missing
  // or malformed file, a shard outside the folder, a tensor that the index or its shard lacks, or
  // that two shards hold; ConfigError for a bad config.json.
  explicit Checkpoint(const std::filesystem::path& folder);
  ~Checkpoint();
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;

  const std::filesystem::path& folder() const { return folder_; }
  const ModelConfig& config() const { return config_; }

  // Every tensor, scales included, in order of name.
  std::vector<std::string> names() const;
  bool contains(const std::string& name) const { return entries_.count(name) != 0; }
  // The file that holds the tensor, and its entry there. Throw FileError if there is none.
  const SafetensorsFile& file_of(const std::string& name) const;
  const StoredTensor& info(const std::string& name) const;

  // A copy of the whole tensor in `dtype`. Throws FileError as read_rows.
  at::Tensor read(const std::string& name, at::ScalarType dtype) const;

  // Rows [begin, end) into `destination` [end - begin, columns], converted to its dtype straight
  // from the mapping; a tensor of more dimensions counts as [product of all but the last, last], a
  // vector [n] as [n, 1] (destination [end - begin] is fine too). destination may be strided.
  // Throws FileError for a missing tensor, for FP8 without scales or with scales of another shape
  // or dtype, and for rows that it lacks or a destination of another shape.
  void read_rows(const std::string& name, int64_t begin, int64_t end,
                 const at::Tensor& destination) const;

  // Lets the system drop the tensor's pages from memory.
  void release(const std::string& name) const { file_of(name).release(name); }

  // Bytes of the tensor that read and read_rows have read so far, each time counted.
  uint64_t bytes_read(const std::string& name) const;

  // The name of the scales that belong to an FP8 weight.
  static std::string scale_name(const std::string& name) { return name + "_scale_inv"; }

 private:
  struct ReadCounts;

  void open_shards();
  void add_shard(const std::filesystem::path& path);
  void check_index(const std::map<std::string, std::string>& shard_of_tensor,
                   const std::filesystem::path& index) const;
  at::Tensor scales_of(const std::string& name) const;
  void dequantise_rows(const std::string& name, int64_t begin, int64_t end,
                       const at::Tensor& destination) const;
  void count_read(const std::string& name, uint64_t bytes) const;

  std::filesystem::path folder_;
  ModelConfig config_;
  std::vector<SafetensorsFile> shards_;
  std::map<std::string, size_t> entries_;  // tensor name -> shards_[i]
  std::unique_ptr<ReadCounts> counts_;
};

}  // namespace farskip
