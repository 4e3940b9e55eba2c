#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/base/files.h"
#include "farskip/base/program.h"
#include "farskip/cli/commands.h"
#include "farskip/train/run_plot.h"

namespace farskip {
namespace {

struct PlotOptions {
  std::vector<std::filesystem::path> runs;
  std::filesystem::path out;
  std::string axis = "steps";
  int smoothing = 1;
};

RunPlot::Format format_of(const std::filesystem::path& picture) {
  if (picture.extension() == ".svg") return RunPlot::Format::svg;
  if (picture.extension() == ".png") return RunPlot::Format::png;
  throw UsageError(
      "no format of pictures that can be drawn",
      {.where = "--out", .expected = "a name in .svg or .png", .found = picture.string()});
}

void draw(const std::string& script, const std::filesystem::path& picture) {
  const ProgramResult drawn = run_program({"gnuplot"}, script,
                                          "install it (Debian, Ubuntu: apt-get install "
                                          "gnuplot-nox)");
  if (drawn.status != 0 || drawn.output.empty()) {
    throw Error("gnuplot drew nothing", {.where = picture.string(), .found = drawn.errors});
  }
  write_file_atomically(picture, drawn.output);
}

void run(const PlotOptions& options) {
  const RunPlot plot{.format = format_of(options.out),
                     .axis = options.axis == "steps" ? RunPlot::Axis::steps : RunPlot::Axis::tokens,
                     .smoothing = options.smoothing};
  const std::vector<std::string> names = run_names(options.runs);
  std::vector<PlottedRun> runs;
  for (size_t i = 0; i < names.size(); ++i) {
    runs.push_back({names[i], read_run_metrics(options.runs[i])});
  }
  draw(plot_script(runs, plot), options.out);
  std::cout << "picture: " << options.out.string() << '\n';
}

}  // namespace

void add_plot_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("plot", "Loss and throughput of training runs as a picture");
  auto options = std::make_shared<PlotOptions>();
  command->add_option("runs", options->runs, "folders of runs (farskip train)")->required();
  command->add_option("--out", options->out, "the picture to write, .svg or .png")->required();
  command->add_option("--x", options->axis, "what runs along the picture: steps or tokens")
      ->capture_default_str()
      ->check(CLI::IsMember({"steps", "tokens"}));
  command
      ->add_option("--smooth", options->smoothing,
                   "means over so many lines of the log; what they are means of stands behind")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->callback([options] { run(*options); });
}

}  // namespace farskip
