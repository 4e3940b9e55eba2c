#include "farskip/io/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "farskip/base/error.h"

namespace farskip {
namespace {

struct Free {
  void operator()(utf8proc_uint8_t* text) const { std::free(text); }
};

utf8proc_option_t options_of(NormalForm form) {
  const bool compose = form == NormalForm::nfc || form == NormalForm::nfkc;
  const bool compatible = form == NormalForm::nfkc || form == NormalForm::nfkd;
  return static_cast<utf8proc_option_t>(UTF8PROC_STABLE |
                                        (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                                        (compatible ? UTF8PROC_COMPAT : 0));
}

// The first character that NFC changes or joins with its neighbour is U+0300, 0xCC 0x80.
bool is_surely_normal(std::string_view text, NormalForm form) {
  const unsigned char first_affected = form == NormalForm::nfc ? 0xCC : 0x80;
  return std::all_of(text.begin(), text.end(),
                     [=](char c) { return static_cast<unsigned char>(c) < first_affected; });
}

}  // namespace

bool normalization_is_available() { return true; }

std::string normalize(std::string_view text, NormalForm form) {
  if (is_surely_normal(text, form)) return std::string(text);
  utf8proc_uint8_t* result = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &result, options_of(form));
  const std::unique_ptr<utf8proc_uint8_t, Free> owner(result);
  if (length < 0) {
    throw Error(
        "text can not be normalized",
        {.where = "tokenizer", .expected = {}, .found = utf8proc_errmsg(length), .hint = {}});
  }
  return {reinterpret_cast<const char*>(result), static_cast<size_t>(length)};
}

}  // namespace farskip
