#include "farskip/io/safetensors.h"

#include <ATen/ops/from_blob.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <utility>

#include "farskip/base/error.h"
#include "farskip/io/safetensors_writer.h"

namespace farskip {
namespace {

// In the order of StoredType.
constexpr std::array<at::ScalarType, 12> scalar_types = {
    at::kDouble, at::kFloat, at::kHalf,  at::kBFloat16, at::kFloat8_e4m3fn, at::kFloat8_e5m2,
    at::kLong,   at::kInt,   at::kShort, at::kChar,     at::kByte,          at::kBool};

}  // namespace

at::ScalarType scalar_type_of(StoredType type) { return scalar_types[static_cast<size_t>(type)]; }

StoredType stored_type_of(at::ScalarType type) {
  for (size_t i = 0; i < scalar_types.size(); ++i) {
    if (scalar_types[i] == type) return static_cast<StoredType>(i);
  }
  throw UnsupportedError("safetensors files can not hold this dtype",
                         {.found = c10::toString(type), .hint = "convert the tensor first"});
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : mapping_(std::make_shared<MappedFile>(path)) {
  header_ = std::make_shared<SafetensorsHeader>(
      parse_safetensors_header(mapping_->bytes(), path.string()));
  auto index = std::make_shared<std::unordered_map<std::string, size_t>>();
  for (size_t i = 0; i < tensors().size(); ++i) index->emplace(tensors()[i].name, i);
  index_ = std::move(index);
}

const StoredTensor& SafetensorsFile::info(const std::string& name) const {
  const auto found = index_->find(name);
  if (found == index_->end()) {
    throw FileError("tensor is missing",
                    {.where = path().string(),
                     .expected = printable_name(name),
                     .found = std::to_string(tensors().size()) + " tensors, none of this name"});
  }
  return tensors()[found->second];
}

std::span<const std::byte> SafetensorsFile::bytes(const std::string& name) const {
  const StoredTensor& tensor = info(name);
  return mapping_->bytes().subspan(tensor.begin, tensor.end - tensor.begin);
}

at::Tensor SafetensorsFile::view(const std::string& name) const {
  const StoredTensor& tensor = info(name);
  const std::span<const std::byte> data = bytes(name);
  const auto dtype = at::TensorOptions().dtype(scalar_type_of(tensor.type));
  const auto address = reinterpret_cast<uintptr_t>(data.data());
  if (data.empty() || address % static_cast<uintptr_t>(stored_type_size(tensor.type)) != 0) {
    at::Tensor copy = at::empty(tensor.shape, dtype);
    std::copy(data.begin(), data.end(), static_cast<std::byte*>(copy.data_ptr()));
    return copy;
  }
  return at::from_blob(
      const_cast<std::byte*>(data.data()), tensor.shape, [keep = mapping_](void*) {}, dtype);
}

void SafetensorsFile::prefetch(const std::string& name, size_t begin, size_t end) const {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const std::span<const std::byte> data = bytes(name).subspan(begin, end - begin);
  const auto first = reinterpret_cast<uintptr_t>(data.data()) / page * page;
  const auto last = reinterpret_cast<uintptr_t>(data.data() + data.size());
  // Advice only, here and below: where it is refused nothing else changes.
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_WILLNEED);
}

void SafetensorsFile::release(const std::string& name) const {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const std::span<const std::byte> data = bytes(name);
  const auto first = (reinterpret_cast<uintptr_t>(data.data()) + page - 1) / page * page;
  const auto last = reinterpret_cast<uintptr_t>(data.data() + data.size()) / page * page;
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<StoredTensor> entries;
  std::unordered_map<std::string, const at::Tensor*> by_name;
  for (const NamedTensor& named : tensors) {
    if (!named.tensor.defined()) {
      throw UnsupportedError("can not be written",
                             {.where = path.string() + ": " + printable_name(named.name),
                              .expected = "a tensor",
                              .found = "an undefined one"});
    }
    entries.push_back({.name = named.name,
                       .type = stored_type_of(named.tensor.scalar_type()),
                       .shape = named.tensor.sizes().vec()});
    by_name.emplace(named.name, &named.tensor);
  }
  stream_safetensors(path, std::move(entries), metadata,
                     [&](const StoredTensor& entry) { return *by_name.at(entry.name); });
}

}  // namespace farskip
