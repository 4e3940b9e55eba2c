#include "farskip/io/utf8.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "farskip/base/error.h"
#include "farskip/io/byte_alphabet.h"

namespace farskip {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string utf8(char32_t code_point) {
  std::string text;
  append_utf8(text, code_point);
  return text;
}

TEST(Utf8, EveryCodePointGoesThereAndBack) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    const std::string text = utf8(c);
    const bool is_surrogate = c >= 0xD800 && c <= 0xDFFF;
    ASSERT_EQ(find_invalid_utf8(text).has_value(), is_surrogate) << std::hex << uint32_t{c};
    if (is_surrogate) continue;
    ASSERT_EQ(first_code_point(text).value, c);
    ASSERT_EQ(first_code_point(text).bytes, text.size());
    ASSERT_EQ(last_code_point("x" + text).value, c);
  }
}

TEST(Utf8, TheFirstInvalidByteIsFoundWhereverItStands) {
  for (const char* bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xC3", "\xE2\x82", "\xF0\x9F\x98", "\xC3(",
        "\xE2\x82(", "\xF0\x9F\x98("}) {
    for (size_t before : {0, 1, 7, 8, 9, 31}) {
      const std::string text = std::string(before, 'a') + bad + std::string(20, 'b');
      EXPECT_EQ(find_invalid_utf8(text), before);
      EXPECT_EQ(find_invalid_utf8("\xC3\xA9" + text), before + 2);
    }
    EXPECT_EQ(find_invalid_utf8(bad), 0u) << "cut off";
  }
  EXPECT_FALSE(find_invalid_utf8(""));
  EXPECT_FALSE(find_invalid_utf8(std::string(40, '\0')));
}

TEST(Utf8, TheErrorSaysWhere) {
  try {
    require_utf8("ab\xFF", "book.txt", 100);
    FAIL();
  } catch (const FileError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("book.txt: byte 102"), HasSubstr("0xFF")));
  }
}

TEST(Utf8, WhiteSpaceIsUnicodes) {
  int count = 0;
  for (char32_t c = 0; c <= 0x10FFFF; ++c) count += is_white_space(c);
  EXPECT_EQ(count, 25);
  EXPECT_TRUE(is_white_space(0x3000));
  EXPECT_FALSE(is_white_space(0x180E));
  EXPECT_FALSE(is_white_space(0x200B));
}

TEST(ByteAlphabet, IsOneVisibleCharacterAByte) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  EXPECT_EQ(bytes_from_alphabet(bytes_to_alphabet(all)), all);
  EXPECT_EQ(bytes_to_alphabet(" a\n\xAD"), "\u0120a\u010A\u0143");
  EXPECT_EQ(bytes_from_alphabet("\u00E9"), "\xE9");
  EXPECT_EQ(bytes_from_alphabet(""), "");
}

TEST(ByteAlphabet, OtherCharactersStandForNothing) {
  for (const char* text : {" ", "a b", "\n", "\u00AD", "\u0144", "\u4E00", "\x7F"}) {
    EXPECT_FALSE(bytes_from_alphabet(text)) << text;
  }
}

}  // namespace
}  // namespace farskip
