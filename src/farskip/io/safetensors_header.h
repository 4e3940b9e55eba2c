#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace farskip {

// Element types of the safetensors format that this version reads and writes.
enum class StoredType { f64, f32, f16, bf16, f8_e4m3, f8_e5m2, i64, i32, i16, i8, u8, boolean };

// The name in the file, e.g. "BF16", and the bytes of one element.
std::string_view stored_type_name(StoredType type);
int64_t stored_type_size(StoredType type);

// One tensor as a safetensors header describes it. Row-major, without padding.
struct StoredTensor {
  std::string name;
  StoredType type = StoredType::f32;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes from the start of the file

  int64_t elements() const;
  // "BF16 [64, 128]", for messages.
  std::string describe() const;
};

struct SafetensorsHeader {
  std::vector<StoredTensor> tensors;  // in the order of their bytes
  std::map<std::string, std::string> metadata;
};

// The longest header that is read, in bytes; the format's own limit.
inline constexpr uint64_t safetensors_header_limit = 100'000'000;

// Reads and checks the header of a whole safetensors file. Every byte behind the header must
// belong to exactly one tensor. Throws FileError that names `path`, the tensor, what was expected
// and what was found. Torch-free and without state, so that it can be fuzzed alone.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file,
                                           const std::string& path);

// Lays the tensors out (widest elements first, then by name, so that all are aligned), sets their
// begin and end, and returns the bytes that come before the data: length and padded JSON.
// Throws FileError naming `path` for a repeated or reserved name or a shape that overflows.
std::string format_safetensors_header(std::vector<StoredTensor>& tensors,
                                      const std::map<std::string, std::string>& metadata,
                                      const std::string& path);

// "[64, 128]", for messages.
std::string describe_shape(std::span<const int64_t> shape);

// A name from a file made fit for one line of a message: control bytes replaced, cut when long.
std::string printable_name(std::string_view name);

}  // namespace farskip
