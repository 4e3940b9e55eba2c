#include "farskip/base/error.h"

#include <gtest/gtest.h>

namespace farskip {
namespace {

TEST(Error, MessageNamesPlaceExpectedFoundAndHint) {
  const ConfigError error("wrong width", {.where = "config.json: hidden_size",
                                          .expected = "a positive integer",
                                          .found = "-3",
                                          .hint = "check the file"});
  EXPECT_STREQ(error.what(),
               "config.json: hidden_size: wrong width (expected a positive integer, found -3); "
               "check the file");
}

TEST(Error, EmptyPartsAreLeftOut) { EXPECT_STREQ(CommError("gone").what(), "gone"); }

}  // namespace
}  // namespace farskip
