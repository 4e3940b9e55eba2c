#include "farskip/io/checkpoint.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>
#include <utility>

#include "farskip/base/error.h"
#include "farskip/base/json.h"
#include "farskip/io/block_scales.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;

constexpr const char* single_file = "model.safetensors";
constexpr const char* index_file = "model.safetensors.index.json";
constexpr int64_t dequantised_at_once = int64_t{1} << 18;  // elements

bool is_fp8(StoredType type) { return type == StoredType::f8_e4m3 || type == StoredType::f8_e5m2; }

int64_t columns_of(const StoredTensor& tensor) {
  return tensor.shape.size() < 2 ? 1 : tensor.shape.back();
}

int64_t rows_of(const StoredTensor& tensor) {
  int64_t rows = 1;
  const size_t leading = tensor.shape.size() < 2 ? tensor.shape.size() : tensor.shape.size() - 1;
  for (size_t i = 0; i < leading; ++i) rows *= tensor.shape[i];
  return rows;
}

int64_t blocks_in(int64_t size, int64_t block) { return (size + block - 1) / block; }

// An index must not reach files outside its folder.
bool is_plain_file_name(std::string_view name) {
  constexpr std::string_view separators("/\\\0", 3);
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(separators) == std::string_view::npos;
}

// The weight map of an index: tensor name -> file name. Throws FileError.
std::map<std::string, std::string> read_index(const fs::path& path) {
  const Json json = read_json_file(path);
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end() || !map->is_object()) {
    throw FileError("not an index of shards", {.where = path.string(),
                                               .expected = "an object with a weight_map object",
                                               .found = abbreviate(json)});
  }
  std::map<std::string, std::string> shard_of_tensor;
  for (const auto& [name, shard] : map->items()) {
    if (!shard.is_string()) {
      throw FileError("wrong shard", {.where = path.string() + ": " + printable_name(name),
                                      .expected = "a file name",
                                      .found = abbreviate(shard)});
    }
    const auto& file = shard.get_ref<const std::string&>();
    if (!is_plain_file_name(file)) {
      throw FileError("shard is not in the folder",
                      {.where = path.string() + ": " + printable_name(name),
                       .expected = "a file name without folders",
                       .found = printable_name(file)});
    }
    shard_of_tensor.emplace(name, file);
  }
  return shard_of_tensor;
}

}  // namespace

struct Checkpoint::ReadCounts {
  std::mutex mutex;
  std::unordered_map<std::string, uint64_t> bytes;  // guarded by mutex
};

Checkpoint::Checkpoint(const fs::path& folder)
    : folder_(folder), counts_(std::make_unique<ReadCounts>()) {
  if (!fs::is_directory(folder)) {
    throw FileError("not a checkpoint folder",
                    {.where = folder.string(),
                     .expected = std::string("a folder with config.json and ") + single_file,
                     .found = fs::exists(folder) ? "a file" : "nothing"});
  }
  config_ = read_model_config(folder);
  open_shards();
}

Checkpoint::~Checkpoint() = default;
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;

void Checkpoint::open_shards() {
  if (fs::exists(folder_ / single_file)) return add_shard(folder_ / single_file);
  const fs::path index = folder_ / index_file;
  if (!fs::exists(index)) {
    throw FileError("checkpoint has no weights",
                    {.where = folder_.string(),
                     .expected = std::string(single_file) + " or " + index_file,
                     .found = "neither"});
  }
  const std::map<std::string, std::string> shard_of_tensor = read_index(index);
  std::set<std::string> files;
  for (const auto& [name, file] : shard_of_tensor) files.insert(file);
  for (const std::string& file : files) add_shard(folder_ / file);
  check_index(shard_of_tensor, index);
}

void Checkpoint::add_shard(const fs::path& path) {
  shards_.emplace_back(path);
  for (const StoredTensor& tensor : shards_.back().tensors()) {
    const auto [entry, added] = entries_.emplace(tensor.name, shards_.size() - 1);
    if (added) continue;
    throw FileError("tensor is in two shards",
                    {.where = path.string() + ": " + printable_name(tensor.name),
                     .expected = "one shard",
                     .found = "also in " + shards_[entry->second].path().filename().string()});
  }
}

void Checkpoint::check_index(const std::map<std::string, std::string>& shard_of_tensor,
                             const fs::path& index) const {
  for (const auto& [name, file] : shard_of_tensor) {
    const auto entry = entries_.find(name);
    const std::string found = entry == entries_.end()
                                  ? "no such tensor"
                                  : shards_[entry->second].path().filename().string();
    if (found != file) {
      throw FileError("index names a tensor that its shard lacks",
                      {.where = index.string() + ": " + printable_name(name),
                       .expected = printable_name(file),
                       .found = found});
    }
  }
  for (const auto& [name, shard] : entries_) {
    if (shard_of_tensor.count(name) == 0) {
      throw FileError("tensor is not in the index",
                      {.where = shards_[shard].path().string() + ": " + printable_name(name),
                       .expected = std::string("an entry in ") + index_file,
                       .found = "none"});
    }
  }
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  names.reserve(entries_.size());
  for (const auto& [name, shard] : entries_) names.push_back(name);
  return names;
}

const SafetensorsFile& Checkpoint::file_of(const std::string& name) const {
  const auto entry = entries_.find(name);
  if (entry == entries_.end()) {
    throw FileError("tensor is missing",
                    {.where = folder_.string(),
                     .expected = printable_name(name),
                     .found = std::to_string(entries_.size()) + " tensors, none of this name"});
  }
  return shards_[entry->second];
}

const StoredTensor& Checkpoint::info(const std::string& name) const {
  return file_of(name).info(name);
}

at::Tensor Checkpoint::read(const std::string& name, at::ScalarType dtype) const {
  const StoredTensor& tensor = info(name);
  at::Tensor copy = at::empty(tensor.shape, at::TensorOptions().dtype(dtype));
  read_rows(name, 0, rows_of(tensor), copy.view({rows_of(tensor), columns_of(tensor)}));
  return copy;
}

void Checkpoint::read_rows(const std::string& name, int64_t begin, int64_t end,
                           const at::Tensor& destination) const {
  const StoredTensor& tensor = info(name);
  const int64_t rows = rows_of(tensor), columns = columns_of(tensor);
  if (begin < 0 || begin > end || end > rows) {
    throw FileError("tensor has not these rows",
                    {.where = file_of(name).path().string() + ": " + printable_name(name),
                     .expected = "rows within [0, " + std::to_string(rows) + ")",
                     .found = "[" + std::to_string(begin) + ", " + std::to_string(end) + ")"});
  }
  const at::Tensor target = destination.dim() == 1 ? destination.unsqueeze(1) : destination;
  if (target.dim() != 2 || target.size(0) != end - begin || target.size(1) != columns) {
    throw FileError("rows do not fit where they are read to",
                    {.where = file_of(name).path().string() + ": " + printable_name(name),
                     .expected = describe_shape(target.sizes()),
                     .found = describe_shape(std::vector<int64_t>{end - begin, columns})});
  }
  const auto row_bytes = static_cast<size_t>(columns * stored_type_size(tensor.type));
  const auto first = static_cast<size_t>(begin) * row_bytes;
  const auto last = static_cast<size_t>(end) * row_bytes;
  file_of(name).prefetch(name, first, last);
  count_read(name, last - first);
  if (is_fp8(tensor.type)) return dequantise_rows(name, begin, end, target);
  target.copy_(file_of(name).view(name).reshape({rows, columns}).narrow(0, begin, end - begin));
}

// The scales of an FP8 tensor [..., rows, columns]: [..., blocks of rows, blocks of columns], fp32.
at::Tensor Checkpoint::scales_of(const std::string& name) const {
  const StoredTensor& tensor = info(name);
  const std::string where = file_of(name).path().string() + ": " + printable_name(name);
  const int64_t block = config_.fp8_block;
  if (block <= 0 || tensor.shape.size() < 2) {
    throw FileError(
        "FP8 weight without blocks",
        {.where = where,
         .expected = "a matrix, and quantization_config.weight_block_size in config.json",
         .found = tensor.describe()});
  }
  std::vector<int64_t> shape = tensor.shape;
  for (size_t i = shape.size() - 2; i < shape.size(); ++i) shape[i] = blocks_in(shape[i], block);
  const std::string scale = scale_name(name);
  if (!contains(scale)) {
    throw FileError("FP8 weight without scales",
                    {.where = where, .expected = printable_name(scale), .found = "no such tensor"});
  }
  const StoredTensor& stored = info(scale);
  const bool known = stored.type == StoredType::f32 || stored.type == StoredType::bf16;
  if (!known || stored.shape != shape) {
    throw FileError("wrong scales",
                    {.where = file_of(scale).path().string() + ": " + printable_name(scale),
                     .expected = "F32 " + describe_shape(shape),
                     .found = stored.describe()});
  }
  return file_of(scale).view(scale).to(at::kFloat);
}

void Checkpoint::dequantise_rows(const std::string& name, int64_t begin, int64_t end,
                                 const at::Tensor& destination) const {
  const StoredTensor& tensor = info(name);
  const at::Tensor scales = scales_of(name);
  const std::span<const std::byte> bytes = file_of(name).bytes(name);
  const int64_t block = config_.fp8_block;
  const auto columns = static_cast<size_t>(columns_of(tensor));
  const int64_t matrix_rows = tensor.shape[tensor.shape.size() - 2];
  const int64_t block_rows = blocks_in(matrix_rows, block);
  const auto blocks = static_cast<size_t>(blocks_in(columns_of(tensor), block));
  const int64_t piece = std::max<int64_t>(1, dequantised_at_once / std::max<int64_t>(1, columns));
  const at::Tensor buffer =
      at::empty({std::min(piece, end - begin), columns_of(tensor)}, at::kFloat);
  for (int64_t first = begin; first < end; first += piece) {
    const int64_t count = std::min(piece, end - first);
    for (int64_t row = first; row < first + count; ++row) {
      const int64_t scale_row = row / matrix_rows * block_rows + row % matrix_rows / block;
      dequantise_row(tensor.type, bytes.subspan(static_cast<size_t>(row) * columns, columns),
                     {scales.const_data_ptr<float>() + scale_row * blocks, blocks}, block,
                     {buffer.data_ptr<float>() + (row - first) * columns, columns});
    }
    destination.narrow(0, first - begin, count).copy_(buffer.narrow(0, 0, count));
  }
}

void Checkpoint::count_read(const std::string& name, uint64_t bytes) const {
  const std::lock_guard lock(counts_->mutex);
  counts_->bytes[name] += bytes;
}

uint64_t Checkpoint::bytes_read(const std::string& name) const {
  const std::lock_guard lock(counts_->mutex);
  const auto count = counts_->bytes.find(name);
  return count == counts_->bytes.end() ? 0 : count->second;
}

}  // namespace farskip
