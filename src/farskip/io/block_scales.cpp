#include "farskip/io/block_scales.h"

#include <c10/util/Float8_e4m3fn.h>
#include <c10/util/Float8_e5m2.h>

#include <algorithm>
#include <array>

namespace farskip {
namespace {

using ByteValues = std::array<float, 256>;

template <typename Float8>
ByteValues make_values() {
  ByteValues values;
  for (unsigned i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(Float8(static_cast<uint8_t>(i), Float8::from_bits()));
  }
  return values;
}

const ByteValues& values_of(StoredType type) {
  static const ByteValues e4m3 = make_values<c10::Float8_e4m3fn>();
  static const ByteValues e5m2 = make_values<c10::Float8_e5m2>();
  return type == StoredType::f8_e4m3 ? e4m3 : e5m2;
}

}  // namespace

void dequantise_row(StoredType type, std::span<const std::byte> row, std::span<const float> scales,
                    int64_t block, std::span<float> output) {
  const ByteValues& values = values_of(type);
  const auto width = static_cast<size_t>(block);
  for (size_t begin = 0, index = 0; begin < output.size(); begin += width, ++index) {
    const float scale = scales[index];
    const size_t end = std::min(begin + width, output.size());
    for (size_t c = begin; c < end; ++c) output[c] = values[static_cast<uint8_t>(row[c])] * scale;
  }
}

}  // namespace farskip
