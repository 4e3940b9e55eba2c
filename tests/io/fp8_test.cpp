#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "checkpoint_tools.h"
#include "farskip/base/error.h"
#include "farskip/base/random.h"
#include "farskip/io/block_scales.h"

namespace farskip {
namespace {

using testing::HasSubstr;

// OCP 8-bit float: one sign bit, `exponent_bits`, the rest mantissa; by the definition.
float decode(uint8_t byte, int exponent_bits) {
  const int mantissa_bits = 7 - exponent_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (byte >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const float mantissa = static_cast<float>(byte & ((1 << mantissa_bits) - 1)) /
                         static_cast<float>(1 << mantissa_bits);
  const float magnitude =
      exponent == 0 ? std::ldexp(mantissa, 1 - bias) : std::ldexp(1.0f + mantissa, exponent - bias);
  return (byte & 0x80) != 0 ? -magnitude : magnitude;
}

TEST(Fp8, EveryByteDecodesByTheDefinition) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::byte input{static_cast<unsigned char>(byte)};
    const float scale = 0.5f;
    float value = 0;
    const auto run = [&](StoredType type) {
      dequantise_row(type, std::span(&input, 1), std::span(&scale, 1), 128, std::span(&value, 1));
    };
    run(StoredType::f8_e4m3);
    if ((byte & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value)) << byte;
    } else {
      EXPECT_EQ(value, 0.5f * decode(static_cast<uint8_t>(byte), 4)) << byte;
    }
    run(StoredType::f8_e5m2);
    if ((byte & 0x7c) != 0x7c) {
      EXPECT_EQ(value, 0.5f * decode(static_cast<uint8_t>(byte), 5));
    }
  }
}

// A weight of 130 x 200 in blocks of 128: two block rows and columns, ragged at both edges.
class Fp8Checkpoint : public testing::Test {
 protected:
  static constexpr int64_t rows = 130, columns = 200;

  Fp8Checkpoint() : bytes_(at::empty({rows, columns}, at::kByte)) {
    Random random(3);
    for (int64_t i = 0; i < bytes_.numel(); ++i) {
      bytes_.data_ptr<uint8_t>()[i] =
          static_cast<uint8_t>(random.below(0x7f) | random.below(2) << 7);
    }
    scales_ = at::arange(1, 5, at::kFloat).view({2, 2}) * 0.25;
  }

  at::Tensor weight() const { return bytes_.view(at::kFloat8_e4m3fn); }
  void write(const Tensors& tensors, const Json& changes = fp8_config()) const {
    write_checkpoint(folder_.path(), "deepseek_v3", tensors, changes);
  }
  Checkpoint open() const { return Checkpoint(folder_.path()); }
  std::string error() const {
    return message_of<FileError>([&] { open().read("w", at::kFloat); });
  }
  float expected(int64_t row, int64_t column) const {
    const float scale = scales_.const_data_ptr<float>()[row / 128 * 2 + column / 128];
    return decode(bytes_.const_data_ptr<uint8_t>()[row * columns + column], 4) * scale;
  }

  at::Tensor bytes_, scales_;

 private:
  TemporaryFolder folder_;
};

TEST_F(Fp8Checkpoint, BlocksAreScaledUpToTheRaggedEdge) {
  write({{"w", weight()}, {"w_scale_inv", scales_}});
  const at::Tensor read = open().read("w", at::kFloat);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      ASSERT_EQ(read[row][column].item<float>(), expected(row, column)) << row << " " << column;
    }
  }
}

TEST_F(Fp8Checkpoint, RowRangesEqualThoseRowsOfTheWhole) {
  write({{"w", weight()}, {"w_scale_inv", scales_}});
  const Checkpoint checkpoint = open();
  const at::Tensor whole = checkpoint.read("w", at::kBFloat16);
  EXPECT_TRUE(at::equal(whole, checkpoint.read("w", at::kFloat).to(at::kBFloat16)));
  for (const auto& [begin, end] :
       {std::pair<int64_t, int64_t>{0, 1}, {120, 130}, {129, 130}, {5, 5}}) {
    const at::Tensor part = at::empty({end - begin, columns}, at::kBFloat16);
    checkpoint.read_rows("w", begin, end, part);
    EXPECT_TRUE(at::equal(part, whole.narrow(0, begin, end - begin))) << begin;
  }
}

TEST_F(Fp8Checkpoint, MatricesOfExpertsHaveTheirOwnBlocks) {
  write({{"w", weight().view({2, rows / 2, columns})}, {"w_scale_inv", scales_.view({2, 1, 2})}});
  const at::Tensor read = open().read("w", at::kFloat);
  const float scale = scales_.const_data_ptr<float>()[2];  // second matrix, first block column
  EXPECT_EQ(read[1][0][0].item<float>(),
            decode(bytes_.const_data_ptr<uint8_t>()[rows / 2 * columns], 4) * scale);
}

TEST_F(Fp8Checkpoint, WithoutRightScalesIsRefused) {
  write({{"w", weight()}});
  EXPECT_THAT(error(), HasSubstr("expected w_scale_inv"));
  write({{"w", weight()}, {"w_scale_inv", at::full({1, 2}, 1.0, at::kFloat)}});
  EXPECT_THAT(error(), HasSubstr("expected F32 [2, 2], found F32 [1, 2]"));
  write({{"w", weight()}, {"w_scale_inv", scales_.to(at::kLong)}});
  EXPECT_THAT(error(), HasSubstr("found I64 [2, 2]"));
  write({{"w", weight()}, {"w_scale_inv", scales_}}, Json::object());
  EXPECT_THAT(error(), HasSubstr("weight_block_size"));
  write({{"w", weight().view({-1})}, {"w_scale_inv", scales_}});
  EXPECT_THAT(error(), HasSubstr("FP8 weight without blocks"));
}

}  // namespace
}  // namespace farskip
