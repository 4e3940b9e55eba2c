#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "../base/temporary_folder.h"
#include "farskip/base/files.h"
#include "run_farskip.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

bool gnuplot_is_there() { return std::system("gnuplot --version >/dev/null 2>&1") == 0; }

class PlotCommand : public testing::Test {
 protected:
  PlotCommand() {
    for (const char* run : {"warm", "it's cold"}) {
      fs::create_directories(folder_.path() / run);
      write_file_atomically(folder_.path() / run / "metrics.jsonl", metrics_);
    }
  }
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  Output plot(const std::string& picture, const std::string& flags = "") const {
    return farskip("plot " + path("warm") + " \"" + path("it's cold") + "\" --out " +
                       path(picture) + " " + flags,
                   path("errors"));
  }
  std::string errors() const { return read_file(path("errors")); }

  const std::string metrics_ =
      R"({"step": 1, "tokens": 256, "loss": 9.5, "tokens_per_second": 1000})"
      "\n"
      R"({"step": 2, "tokens": 512, "loss": 9.0, "tokens_per_second": 1100})"
      "\n"
      R"({"step": 2, "tokens": 512, "validation_loss": 9.25})"
      "\n";
  const TemporaryFolder folder_;
};

TEST_F(PlotCommand, DrawsBothFormats) {
  if (!gnuplot_is_there()) GTEST_SKIP() << "no gnuplot";
  ASSERT_EQ(plot("picture.svg").status, 0) << errors();
  const std::string svg = read_file(path("picture.svg"));
  EXPECT_THAT(svg, AllOf(HasSubstr("<svg"), HasSubstr("</svg>"), HasSubstr("warm, validation"),
                         HasSubstr("cold"), HasSubstr("tokens/s")));
  ASSERT_EQ(plot("picture.png", "--x tokens --smooth 3").status, 0) << errors();
  EXPECT_EQ(read_file(path("picture.png")).substr(0, 8), "\x89PNG\r\n\x1a\n");
}

TEST_F(PlotCommand, WrongUseExitsWithTwo) {
  EXPECT_EQ(plot("picture.jpeg").status, 2);
  EXPECT_THAT(errors(), HasSubstr(".svg"));
  EXPECT_EQ(plot("picture.svg", "--x hours").status, 2);
  EXPECT_EQ(plot("picture.svg", "--smooth 0").status, 2);
  EXPECT_EQ(farskip("plot " + path("warm")).status, 2);
}

TEST_F(PlotCommand, WrongMetricsAreNamedAndLeaveNoPicture) {
  write_file_atomically(path("warm") + "/metrics.jsonl", metrics_ + "{\n");
  EXPECT_EQ(plot("picture.svg").status, 1);
  EXPECT_THAT(errors(), HasSubstr("warm/metrics.jsonl:4"));
  EXPECT_FALSE(fs::exists(path("picture.svg")));
}

TEST_F(PlotCommand, WithoutGnuplotSaysHowToGetIt) {
  const std::string command = "PATH=/nowhere " + std::string(FARSKIP_BINARY) + " plot " +
                              path("warm") + " --out " + path("x.svg") + " 2>" + path("errors");
  EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 1);
  EXPECT_THAT(errors(), AllOf(HasSubstr("gnuplot"), HasSubstr("not installed"),
                              HasSubstr("apt-get install")));
  EXPECT_FALSE(fs::exists(path("x.svg")));
}

}  // namespace
}  // namespace farskip
