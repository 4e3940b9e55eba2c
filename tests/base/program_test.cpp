#include "farskip/base/program.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "farskip/base/error.h"

namespace farskip {
namespace {

TEST(Program, GetsItsInputAndGivesBackAllItSays) {
  const std::string large(1 << 20, 'x');
  const ProgramResult result =
      run_program({"sh", "-c", "cat; echo to stderr >&2; exit 7"}, large, "");
  EXPECT_EQ(result.status, 7);
  EXPECT_TRUE(result.output == large);
  EXPECT_EQ(result.errors, "to stderr\n");
}

TEST(Program, WordsAreNotReadByAShell) {
  EXPECT_EQ(run_program({"printf", "%s|", "$HOME", "a b"}, "", "").output, "$HOME|a b|");
}

TEST(Program, ThatIsKilledSaysBySignal) {
  EXPECT_EQ(run_program({"sh", "-c", "kill -9 $$"}, "", "").status, 128 + 9);
}

TEST(Program, ThatIsNotThereIsUnsupported) {
  try {
    run_program({"no-such-program"}, "", "install it");
    FAIL();
  } catch (const UnsupportedError& error) {
    EXPECT_THAT(error.what(), testing::AllOf(testing::HasSubstr("no-such-program"),
                                             testing::HasSubstr("install it")));
  }
  EXPECT_THROW(run_program({"/etc/passwd"}, "", ""), FileError);
}

}  // namespace
}  // namespace farskip
