#pragma once

#include <span>
#include <string>
#include <vector>

#include "farskip/train/run_metrics.h"

namespace farskip {

struct PlottedRun {
  std::string name;  // in the legend
  RunMetrics metrics;
};

struct RunPlot {
  enum class Format { svg, png };
  enum class Axis { steps, tokens };
  Format format = Format::svg;
  Axis axis = Axis::steps;
  // Curves of training are means over so many lines of the log, the line at hand in the middle; at
  // the ends over as many as lie on both sides. 1: as reported. Losses as reported stand behind.
  int smoothing = 1;
};

// The script with which gnuplot 5 draws runs to its stdout: losses of training as lines and of
// validation as points, and below them the throughput. Curves that have no line are left out.
// Throws ConfigError for a smoothing below 1 or no runs.
std::string plot_script(std::span<const PlottedRun> runs, const RunPlot& plot);

// What runs are called: the names of their folders; where two are the same, the paths as given.
std::vector<std::string> run_names(std::span<const std::filesystem::path> run_folders);

}  // namespace farskip
