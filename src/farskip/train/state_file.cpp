#include "farskip/train/state_file.h"

#include <unordered_map>

#include "farskip/base/error.h"
#include "farskip/io/safetensors_writer.h"
#include "farskip/nn/check.h"

namespace farskip {
namespace {

constexpr const char* format_key = "format";
constexpr const char* format_name = "farskip-training-state-1";

// The part that a tensor's name ends in, and the entry in front of it.
std::optional<std::pair<ShardEntry, size_t>> parse_name(const std::string& name) {
  for (size_t part = 0; part < state_parts.size(); ++part) {
    const std::string suffix = std::string(".") + state_parts[part];
    if (!name.ends_with(suffix)) continue;
    const auto entry = parse_shard_entry(name.substr(0, name.size() - suffix.size()));
    if (entry) return std::pair(*entry, part);
  }
  return std::nullopt;
}

}  // namespace

std::array<at::Tensor, 3> tensors_of(const StateShard& shard) {
  return {shard.master, shard.m, shard.v};
}

std::string state_tensor_name(const ShardEntry& entry, size_t part) {
  return to_string(entry) + "." + state_parts.at(part);
}

void check_shard(const StateShard& shard) {
  const std::string name = to_string(shard.entry);
  if (shard.m.defined() != shard.v.defined()) {
    throw Error("one moment is missing",
                {.where = name, .expected = "m and v, or neither", .found = "one of them"});
  }
  const std::array<at::Tensor, 3> tensors = tensors_of(shard);
  for (size_t part = 0; part < tensors.size(); ++part) {
    if (part > 0 && !tensors[part].defined()) continue;
    const std::string where = state_tensor_name(shard.entry, part);
    require_shape(tensors[part], {shard.entry.count}, where);
    require_dtype(tensors[part], at::kFloat, where);
  }
}

FileStamp write_state_file(const std::filesystem::path& path, std::span<const StateShard> shards) {
  std::vector<StoredTensor> entries;
  std::unordered_map<std::string, at::Tensor> by_name;
  for (const StateShard& shard : shards) {
    check_shard(shard);
    const std::array<at::Tensor, 3> tensors = tensors_of(shard);
    for (size_t part = 0; part < tensors.size(); ++part) {
      if (!tensors[part].defined()) continue;
      entries.push_back({.name = state_tensor_name(shard.entry, part),
                         .type = StoredType::f32,
                         .shape = {shard.entry.count}});
      by_name.emplace(entries.back().name, tensors[part]);
    }
  }
  return stream_safetensors(path, std::move(entries), {{format_key, format_name}},
                            [&](const StoredTensor& entry) { return by_name.at(entry.name); });
}

StateFile::StateFile(const std::filesystem::path& path) : file_(path) {
  const auto format = file_.metadata().find(format_key);
  if (format == file_.metadata().end() || format->second != format_name) {
    throw FileError("not a rank's training state",
                    {.where = path.string(),
                     .expected = std::string("format ") + format_name,
                     .found = format == file_.metadata().end() ? "none" : format->second});
  }
  for (const StoredTensor& tensor : file_.tensors()) {
    const auto parsed = parse_name(tensor.name);
    const bool fits = parsed && tensor.type == StoredType::f32 &&
                      tensor.shape == std::vector<int64_t>{parsed->first.count};
    if (!fits) {
      throw FileError("tensor is not of a training state",
                      {.where = path.string() + ": " + printable_name(tensor.name),
                       .expected = "F32 [count], named PARAMETER[FIRST:END].master, .m or .v",
                       .found = tensor.describe()});
    }
    if (parsed->second == 0) entries_.push_back(parsed->first);
  }
}

void StateFile::read(size_t entry, size_t part, int64_t offset,
                     const at::Tensor& destination) const {
  const at::Tensor stored = file_.view(state_tensor_name(entries_.at(entry), part));
  at::Tensor(destination).copy_(stored.narrow(0, offset, destination.numel()));
}

}  // namespace farskip
