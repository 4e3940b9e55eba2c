#include "farskip/base/error.h"
#include "farskip/io/normalizer.h"

namespace farskip {

bool normalization_is_available() { return false; }

std::string normalize(std::string_view, NormalForm) {
  throw UnsupportedError(
      "this build of farskip is without utf8proc, which brings text into Unicode's normal forms",
      {.where = "tokenizer",
       .expected = {},
       .found = {},
       .hint = "install libutf8proc-dev and configure again"});
}

}  // namespace farskip
