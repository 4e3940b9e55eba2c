#pragma once

#include <cstdint>

namespace farskip {

// How a row lies in the bytes that travel where it does not go as it is: its values; a scale for
// every 128 of them where they are FP8; and where outputs are summed before they return, for each
// of its token's choices the receiver's local expert (-1: on another rank) and the weight.
struct PacketLayout {
  static constexpr int64_t block = 128;     // values that share a scale
  static constexpr int64_t alignment = 16;  // of a packet, bytes

  int64_t width = 0;        // values
  int64_t value_bytes = 1;  // of one value
  bool scaled = false;
  int64_t choices = 0;  // 0: without experts and weights

  int64_t blocks() const { return scaled ? (width + block - 1) / block : 0; }
  // Where each part begins, in bytes; values at 0.
  int64_t scales_at() const { return (width * value_bytes + 3) / 4 * 4; }  // fp32 [blocks]
  int64_t experts_at() const { return scales_at() + 4 * blocks(); }        // int32 [choices]
  int64_t weights_at() const { return experts_at() + 4 * choices; }        // fp32 [choices]
  int64_t bytes() const {
    return (weights_at() + 4 * choices + alignment - 1) / alignment * alignment;
  }
};

}  // namespace farskip
