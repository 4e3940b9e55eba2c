#include <cstddef>
#include <cstdint>
#include <span>

#include "farskip/base/error.h"
#include "farskip/io/safetensors_header.h"

// Whatever the bytes are, parsing gives a header whose tensors lie inside them, or a FileError.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = std::as_bytes(std::span(data, size));
  try {
    auto header = farskip::parse_safetensors_header(file, "input");
    uint64_t covered = 0;
    for (const farskip::StoredTensor& tensor : header.tensors) {
      const auto bytes = tensor.elements() * farskip::stored_type_size(tensor.type);
      if (tensor.end > size || static_cast<uint64_t>(bytes) != tensor.end - tensor.begin) {
        __builtin_trap();
      }
      covered += tensor.end - tensor.begin;
    }
    if (covered > size) __builtin_trap();
    const auto again =
        farskip::format_safetensors_header(header.tensors, header.metadata, "output");
    if (again.size() % 8 != 0) __builtin_trap();
  } catch (const farskip::FileError&) {
  }
  return 0;
}
