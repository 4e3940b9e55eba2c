#include "farskip/nn/packets.h"

#include <ATen/ops/empty.h>

#include <string>

#include "farskip/base/error.h"
#include "farskip/nn/check.h"
#include "farskip/nn/permutation.h"
#include "farskip/nn/quantize.h"

namespace farskip {
namespace {

// `count` elements of every packet, from a byte on.
at::Tensor part(const at::Tensor& packets, const PacketLayout& layout, int64_t first, int64_t count,
                at::ScalarType dtype) {
  require_shape(packets, {-1, layout.bytes()}, "packets");
  require_dtype(packets, at::kByte, "packets");
  const int64_t size = static_cast<int64_t>(c10::elementSize(dtype));
  return packets.narrow(1, first, count * size).view(dtype);
}

void require_value_size(const PacketLayout& layout, at::ScalarType dtype) {
  const auto size = static_cast<int64_t>(c10::elementSize(dtype));
  if (layout.scaled || layout.value_bytes == size) return;
  throw Error("packets hold values of another size",
              {.where = "packets",
               .expected = std::to_string(size) + " bytes, for " + c10::toString(dtype),
               .found = std::to_string(layout.value_bytes),
               .hint = {}});
}

PacketLayout without_choices(PacketLayout layout) {
  layout.choices = 0;
  return layout;
}

// Values and scales as they are moved: whole words.
at::Tensor words(const at::Tensor& packets, const PacketLayout& layout) {
  return part(packets, layout, 0, layout.experts_at() / 4, at::kFloat);
}

}  // namespace

at::Tensor packet_values(const at::Tensor& packets, const PacketLayout& layout,
                         at::ScalarType dtype) {
  require_value_size(layout, dtype);
  return part(packets, layout, 0, layout.width, layout.scaled ? at::kFloat8_e4m3fn : dtype);
}

at::Tensor packet_scales(const at::Tensor& packets, const PacketLayout& layout) {
  return part(packets, layout, layout.scales_at(), layout.blocks(), at::kFloat);
}

at::Tensor packet_experts(const at::Tensor& packets, const PacketLayout& layout) {
  return part(packets, layout, layout.experts_at(), layout.choices, at::kInt);
}

at::Tensor packet_weights(const at::Tensor& packets, const PacketLayout& layout) {
  return part(packets, layout, layout.weights_at(), layout.choices, at::kFloat);
}

void pack_rows(const at::Tensor& packets, const PacketLayout& layout, const at::Tensor& x,
               const at::Tensor& order, int64_t top_k) {
  if (!layout.scaled) {
    return permute_out(packet_values(packets, layout, x.scalar_type()), x, order, top_k);
  }
  // A token is quantised once, however often it travels.
  const PacketLayout alone = without_choices(layout);
  const at::Tensor tokens = at::empty({x.size(0), alone.bytes()}, packets.options());
  quantize_out(packet_values(tokens, alone, x.scalar_type()), packet_scales(tokens, alone), x);
  permute_out(words(packets, layout), words(tokens, alone), order, top_k);
}

void unpack_rows_out(const at::Tensor& out, const at::Tensor& packets, const PacketLayout& layout) {
  const at::Tensor values = packet_values(packets, layout, out.scalar_type());
  if (layout.scaled) return dequantize_out(out, values, packet_scales(packets, layout));
  at::Tensor(out).copy_(values);
}

void unpack_by_inverse_out(const at::Tensor& out, std::span<const at::Tensor> packets,
                           const PacketLayout& layout, const at::Tensor& inverse, int64_t top_k,
                           int64_t first_row) {
  const PacketLayout alone = without_choices(layout);
  const at::Tensor moved =
      layout.scaled ? at::empty({out.size(0), alone.bytes()}, out.options().dtype(at::kByte))
                    : at::Tensor();
  int64_t slot = 0;
  for (const at::Tensor& part : packets) {
    const int64_t slots = part.size(0) * top_k;
    permute_by_inverse_out(
        layout.scaled ? words(moved, alone) : out,
        layout.scaled ? words(part, layout) : packet_values(part, layout, out.scalar_type()),
        inverse.narrow(0, slot, slots), top_k, first_row);
    slot += slots;
  }
  if (layout.scaled) unpack_rows_out(out, moved, alone);
}

}  // namespace farskip
