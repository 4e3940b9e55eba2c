#include "farskip/runtime/bits_check.h"

#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "fixture.h"

namespace farskip::testing {
namespace {

ForwardResult logits(double value) {
  ForwardResult result;
  result.ranks.resize(1);
  result.ranks[0].outputs = {at::full({2, 3}, value)};
  return result;
}

ForwardResult gradients(int64_t bits, double norm) {
  ForwardResult result;
  result.gradient_bits = at::full({2}, bits, at::kLong);
  result.gradient_norms = at::full({2}, norm, at::kDouble);
  return result;
}

class BitsChecked : public ::testing::Test {
 protected:
  BitsVerdict verdict() { return check_.conclude(session_); }
  const Fixture fixture_{"olmoe"};
  Session session_ = fixture_.session(2);
  BitsCheck check_;
};

TEST_F(BitsChecked, RunsOfAFamilyAreComparedWithItsFirst) {
  check_.add("a", "a, first", logits(1));
  check_.add("b", "b, first", logits(2));
  EXPECT_EQ(verdict().compared, 0);
  check_.add("a", "a, second", logits(1));
  check_.add("b", "b, second", logits(2));
  EXPECT_TRUE(verdict().equal);
  EXPECT_EQ(verdict().compared, 2);
  EXPECT_EQ(verdict().gradient_noise, 0);
}

TEST_F(BitsChecked, TheFirstDifferenceIsNamed) {
  check_.add("a", "first", logits(1));
  check_.add("a", "equal", logits(1));
  check_.add("a", "other", logits(1 + 1e-6));
  check_.add("a", "last", logits(3));
  EXPECT_FALSE(verdict().equal);
  EXPECT_EQ(verdict().first_difference, "other");
  EXPECT_EQ(verdict().compared, 3);
}

TEST_F(BitsChecked, NoiseIsTheMostThatANormDiffers) {
  check_.add("a", "first", gradients(1, 2.0));
  check_.add("a", "near", gradients(2, 2.002));
  check_.add("a", "nearer", gradients(3, 1.999));
  EXPECT_FALSE(verdict().equal);
  EXPECT_NEAR(verdict().gradient_noise, 1e-3, 1e-9);
}

}  // namespace
}  // namespace farskip::testing
