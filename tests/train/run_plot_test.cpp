#include "farskip/train/run_plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "farskip/base/error.h"

namespace farskip {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

PlottedRun run(const std::string& name) {
  PlottedRun run{.name = name, .metrics = {}};
  for (int64_t step = 1; step <= 5; ++step) {
    const auto value = static_cast<double>(step * step);
    run.metrics.training.push_back({step, step * 256, value, 100 * value});
  }
  run.metrics.validation.push_back({5, 1280, 8.125});
  return run;
}

std::string script(const std::vector<PlottedRun>& runs, const RunPlot& plot = {}) {
  return plot_script(runs, plot);
}

TEST(PlotScript, DrawsLossesValidationAndThroughputOfEachRun) {
  EXPECT_THAT(
      script({run("a"), run("b")}),
      AllOf(HasSubstr("set terminal svg"), HasSubstr("set xlabel 'steps'"),
            HasSubstr("$curve0 << end_of_curve\n1 1\n2 4\n3 9\n4 16\n5 25\nend_of_curve\n"),
            HasSubstr("$curve1 << end_of_curve\n5 8.125\nend_of_curve\n"),
            HasSubstr("plot $curve0 with lines linewidth 2 linecolor rgb '#0072b2' title 'a', \\\n"
                      "  $curve1 with linespoints"),
            HasSubstr("title 'a, validation'"), HasSubstr("title 'b'"),
            HasSubstr("$curve4 << end_of_curve\n1 100\n2 400\n"), HasSubstr("'tokens/s'")));
}

TEST(PlotScript, FormatAndAxisAreChosen) {
  EXPECT_THAT(script({run("a")}, {.format = RunPlot::Format::png, .axis = RunPlot::Axis::tokens}),
              AllOf(HasSubstr("set terminal pngcairo"), HasSubstr("set xlabel 'thousand tokens'"),
                    HasSubstr("0.256 1\n0.512 4\n"), HasSubstr("1.28 8.125\n"),
                    HasSubstr("set xrange [0:1.28]")));
}

// Means of 1, (1 + 4 + 9) / 3, (1 + 4 + 9 + 16 + 25) / 5, ...
TEST(PlotScript, SmoothingIsCentredAndKeepsWhatWasReported) {
  const std::string smooth = script({run("a")}, {.smoothing = 5});
  EXPECT_THAT(smooth, AllOf(HasSubstr("1 1\n2 4\n3 9\n4 16\n5 25\n"),
                            HasSubstr("1 1\n2 4.666666666666667\n3 11\n4 16.666666666666668\n5 25"),
                            HasSubstr("3 1100\n")));
  EXPECT_EQ(script({run("a")}, {.smoothing = 5}), script({run("a")}, {.smoothing = 1000000}));
  EXPECT_NE(script({run("a")}, {.smoothing = 3}), smooth);
  EXPECT_THROW(script({run("a")}, {.smoothing = 0}), ConfigError);
}

TEST(PlotScript, NamesAreNotRead) {
  EXPECT_THAT(script({run("it's\n'`rm x`")}), HasSubstr("title 'it''s ''`rm x`'"));
}

TEST(PlotScript, CurvesWithoutLinesAreLeftOut) {
  PlottedRun trained = run("a"), validated = run("b");
  trained.metrics.validation.clear();
  validated.metrics.training.clear();
  EXPECT_THAT(script({trained}), Not(HasSubstr("validation")));
  EXPECT_THAT(script({validated}), AllOf(HasSubstr("b, validation"), Not(HasSubstr("tokens/s"))));
  EXPECT_THROW(script({}), ConfigError);
}

TEST(RunNames, AreThoseOfFoldersUnlessTwoAreTheSame) {
  const std::vector<std::filesystem::path> folders = {"out/a/", "x/run", "y/run", "/r/b/."};
  EXPECT_THAT(run_names(folders), ElementsAre("a", "x/run", "y/run", "b"));
  const std::vector<std::filesystem::path> here = {"."};
  EXPECT_EQ(run_names(here)[0], std::filesystem::current_path().filename().string());
}

}  // namespace
}  // namespace farskip
