#include <cstddef>
#include <cstdint>
#include <span>

#include "farskip/base/error.h"
#include "farskip/io/token_file.h"

// Whatever the bytes are, parsing gives parts that lie inside them, or a FileError.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto layout = farskip::parse_token_file(std::as_bytes(std::span(data, size)), "input");
    const bool inside =
        layout.ids_begin <= layout.starts_begin && layout.starts_begin <= layout.contents_end &&
        layout.contents_end <= size &&
        layout.counts.ids <= (layout.starts_begin - layout.ids_begin) / layout.bytes_per_id &&
        layout.counts.documents == (layout.contents_end - layout.starts_begin) / 8;
    if (!inside) __builtin_trap();
  } catch (const farskip::FileError&) {
  }
  return 0;
}
