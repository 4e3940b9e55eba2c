#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "farskip/io/safetensors_header.h"

namespace farskip {

// One row of an FP8 matrix times the scales of its blocks: output[c] = row[c] * scales[c / block].
// `type` is f8_e4m3 or f8_e5m2, `row` holds output.size() bytes, `scales` one value for each
// started block of `block` columns. (DeepSeek-V3's weight_scale_inv, which multiplies.)
void dequantise_row(StoredType type, std::span<const std::byte> row, std::span<const float> scales,
                    int64_t block, std::span<float> output);

}  // namespace farskip
