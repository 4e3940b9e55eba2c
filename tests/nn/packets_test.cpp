#include "farskip/nn/packets.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "farskip/base/error.h"
#include "farskip/nn/quantize.h"
#include "farskip/nn/tensor_ops.h"
#include "random_tensors.h"

namespace farskip::testing {
namespace {

at::Tensor packets_of(const PacketLayout& layout, int64_t rows) {
  return at::full({rows, layout.bytes()}, 0xAB, at::kByte);
}

at::Tensor unpacked(const at::Tensor& packets, const PacketLayout& layout, at::ScalarType dtype) {
  at::Tensor rows = at::empty({packets.size(0), layout.width}, dtype);
  unpack_rows_out(rows, packets, layout);
  return rows;
}

TEST(Packets, LayoutHoldsEveryPartOnce) {
  for (const int64_t width : {1, 64, 127, 128, 129, 7168}) {
    for (const int64_t value_bytes : {1, 2, 4}) {
      for (const int64_t choices : {0, 1, 8}) {
        const PacketLayout layout{.width = width,
                                  .value_bytes = value_bytes,
                                  .scaled = value_bytes == 1,
                                  .choices = choices};
        EXPECT_GE(layout.scales_at(), width * value_bytes);
        EXPECT_EQ(layout.experts_at() - layout.scales_at(), 4 * layout.blocks());
        EXPECT_EQ(layout.weights_at() - layout.experts_at(), 4 * choices);
        EXPECT_GE(layout.bytes(), layout.weights_at() + 4 * choices);
        EXPECT_LT(layout.bytes(), layout.weights_at() + 4 * choices + 16);
        EXPECT_EQ(layout.scales_at() % 4, 0);
        EXPECT_EQ(layout.bytes() % 16, 0);
      }
    }
  }
  // What the formulas count: a value a byte and a scale per 128.
  EXPECT_EQ((PacketLayout{.width = 7168, .scaled = true}.bytes()), 7392);
}

TEST(Packets, CarryRowsExpertsAndWeights) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t width : {1, 7, 64}) {
      const PacketLayout layout{.width = width,
                                .value_bytes = static_cast<int64_t>(c10::elementSize(dtype)),
                                .choices = 3};
      const at::Tensor x = random({5, width}, 1, dtype), weights = random({4, 3}, 2);
      const at::Tensor order = at::tensor({3, 14, 0, 4}, at::kLong);
      const at::Tensor packets = packets_of(layout, 4);
      pack_rows(packets, layout, x, order, 3);
      packet_experts(packets, layout).copy_(at::arange(12).view({4, 3}) - 1);
      packet_weights(packets, layout).copy_(weights);
      EXPECT_TRUE(
          at::equal(unpacked(packets, layout, dtype), x.index_select(0, at::tensor({1, 4, 0, 1}))));
      EXPECT_TRUE(at::equal(packet_experts(packets, layout).to(at::kLong),
                            at::arange(12).view({4, 3}) - 1));
      EXPECT_TRUE(at::equal(packet_weights(packets, layout), weights));
    }
  }
}

// Half a step of a normal e4m3 number is 1/16 of it, of a subnormal one 2^-10 of the scale.
TEST(Packets, Fp8ErrorIsBounded) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t width : {1, 64, 128, 200, 640}) {
      at::Tensor x = random({6, width}, 3);
      x[1] *= 1e-3;
      x[2] *= 1e5;
      x[3].zero_();
      x[4].narrow(0, 0, 1).fill_(1e6);  // one value makes the others of its block small
      x = x.to(dtype);
      const PacketLayout layout{.width = width, .scaled = true, .choices = 2};
      const at::Tensor packets = packets_of(layout, 12);
      pack_rows(packets, layout, x, at::arange(12), 2);
      const at::Tensor found = unpacked(packets, layout, at::kFloat);
      const at::Tensor rows = x.to(at::kFloat).repeat_interleave(2, 0);
      const at::Tensor scales =
          packet_scales(packets, layout).repeat_interleave(128, 1).narrow(1, 0, width);
      const at::Tensor bound = at::maximum(rows.abs() / 16, scales / 1024);
      EXPECT_TRUE(((found - rows).abs() <= bound * 1.0001).all().item<bool>()) << width;
      EXPECT_TRUE(at::equal(found.narrow(0, 6, 2), at::zeros({2, width})));
      const at::Tensor by_operators = at::empty({12, width}, dtype);
      tensor_ops::dequantize_out(by_operators, packet_values(packets, layout, dtype),
                                 packet_scales(packets, layout));
      EXPECT_TRUE(at::equal(unpacked(packets, layout, dtype), by_operators));
    }
  }
}

TEST(Packets, GoToTheirPlacesFromSeveralTensors) {
  for (const bool scaled : {false, true}) {
    const PacketLayout layout{
        .width = 70, .value_bytes = scaled ? 1 : 4, .scaled = scaled, .choices = 2};
    const at::Tensor packets = packets_of(layout, 5);
    pack_rows(packets, layout, random({5, 70}, 1), at::arange(5), 1);
    const at::Tensor rows = unpacked(packets, layout, at::kFloat);
    const at::Tensor inverse = at::tensor({3, -1, 4, 5, -1, 6, -1, -1, 8, 7}, at::kLong);
    const at::Tensor out = at::empty({4, 70});
    const std::vector<at::Tensor> parts = {packets.narrow(0, 0, 2), packets.narrow(0, 2, 0),
                                           packets.narrow(0, 2, 3)};
    unpack_by_inverse_out(out, parts, layout, inverse, 2, 4);
    EXPECT_TRUE(at::equal(out.narrow(0, 0, 3), rows.index_select(0, at::tensor({1, 1, 2}))));
    EXPECT_TRUE(at::equal(out[3], rows[4]));
  }
}

TEST(Packets, NoRowsAndWhatDoesNotFit) {
  const PacketLayout layout{.width = 8, .value_bytes = 4, .choices = 2};
  const PacketLayout scaled{.width = 8, .scaled = true};
  for (const PacketLayout& each : {layout, scaled}) {
    const at::Tensor none = packets_of(each, 0);
    pack_rows(none, each, at::empty({0, 8}), at::empty({0}, at::kLong), 2);
    EXPECT_EQ(unpacked(none, each, at::kFloat).sizes(), at::IntArrayRef({0, 8}));
  }
  const at::Tensor packets = packets_of(layout, 2), order = at::arange(2);
  EXPECT_THROW(pack_rows(packets, layout, random({3, 8}, 1, at::kBFloat16), order, 1), Error);
  EXPECT_THROW(pack_rows(packets, layout, random({3, 9}, 1), order, 1), Error);
  EXPECT_THROW(pack_rows(packets, layout, random({3, 8}, 1), order + 9, 1), Error);
  EXPECT_THROW(pack_rows(packets_of(scaled, 2), layout, random({3, 8}, 1), order, 1), Error);
  EXPECT_THROW(unpacked(packets.to(at::kInt), layout, at::kFloat), Error);
  EXPECT_THROW(
      quantize_out(at::empty({2, 8}, at::kFloat8_e4m3fn), at::empty({2, 2}), random({2, 8}, 1)),
      Error);
}

}  // namespace
}  // namespace farskip::testing
