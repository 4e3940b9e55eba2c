#include <gtest/gtest.h>

#include "farskip/base/error.h"
#include "farskip/io/normalizer.h"
#include "farskip/io/pattern.h"

// What a build without the libraries for text answers: their stubs alone are linked here.
namespace farskip {
namespace {

TEST(PatternsWithoutPcre2, SayWhatIsMissing) {
  EXPECT_FALSE(patterns_are_available());
  EXPECT_THROW(Pattern::regex("a", "t"), UnsupportedError);
  EXPECT_THROW(Pattern::literal("a", "t"), UnsupportedError);
}

TEST(NormalFormsWithoutUtf8proc, SayWhatIsMissing) {
  EXPECT_FALSE(normalization_is_available());
  EXPECT_THROW(normalize("a", NormalForm::nfc), UnsupportedError);
}

}  // namespace
}  // namespace farskip
