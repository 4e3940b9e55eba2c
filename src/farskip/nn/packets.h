#pragma once

#include <ATen/core/Tensor.h>

#include <span>

#include "farskip/model/packet.h"

// Rows as they travel in dispatch: uint8 [rows, layout.bytes()], see PacketLayout. What no part
// holds, bytes between them, is not written.
namespace farskip {

// The parts of packets, as views of them: values [n, width] of `dtype`, or of e4m3 where they are
// scaled, scales fp32 [n, blocks], experts int32 [n, choices], weights fp32 [n, choices]. Throws
// Error if the packets or `dtype` are not of this layout.
at::Tensor packet_values(const at::Tensor& packets, const PacketLayout& layout,
                         at::ScalarType dtype);
at::Tensor packet_scales(const at::Tensor& packets, const PacketLayout& layout);
at::Tensor packet_experts(const at::Tensor& packets, const PacketLayout& layout);
at::Tensor packet_weights(const at::Tensor& packets, const PacketLayout& layout);

// Fills in the values, and scales, of rows of x [T, H]: packet i is of token order[i] / top_k.
// `order` int64 [n]. Throws Error if shapes or dtypes do not fit.
void pack_rows(const at::Tensor& packets, const PacketLayout& layout, const at::Tensor& x,
               const at::Tensor& order, int64_t top_k);

// The values as rows: out [n, width] of the dtype that they travelled in, or dequantised to any.
void unpack_rows_out(const at::Tensor& out, const at::Tensor& packets, const PacketLayout& layout);

// The values of packets, in several tensors, as rows by their places: out [n, width] from `inverse`
// int64 [packets * top_k] and `first_row` as permute_by_inverse_out has them.
void unpack_by_inverse_out(const at::Tensor& out, std::span<const at::Tensor> packets,
                           const PacketLayout& layout, const at::Tensor& inverse, int64_t top_k,
                           int64_t first_row);

}  // namespace farskip
