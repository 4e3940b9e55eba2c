#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace farskip {

// metrics.jsonl in a run's folder: what its training reported, a JSON object a line. Lines of
// training have "step", "tokens", "loss", "tokens_per_second" and more; lines of validation "step",
// "tokens" and "validation_loss".
std::filesystem::path metrics_path(const std::filesystem::path& run_folder);

struct MetricsLine {
  std::string text;  // without its end
  nlohmann::json json;
  std::string where;  // "RUN/metrics.jsonl:17"
  int64_t step = 0;
};

// All lines of the file. What follows the last line end is a line that is being written, or was cut
// when its process was killed, and is left out. Throws FileError for a file that can not be read or
// a line that is no JSON, ConfigError for one without a step; both name the line.
std::vector<MetricsLine> read_metrics_lines(const std::filesystem::path& run_folder);

// A run's curves, by step.
struct RunMetrics {
  struct Training {
    int64_t step = 0, tokens = 0;  // done so far
    double loss = 0;
    double tokens_per_second = 0;
  };
  struct Validation {
    int64_t step = 0, tokens = 0;
    double loss = 0;
  };
  std::vector<Training> training;
  std::vector<Validation> validation;
};

// Throws as read_metrics_lines, ConfigError for lines that lack a field or whose steps go back,
// and FileError for a run without lines.
RunMetrics read_run_metrics(const std::filesystem::path& run_folder);

}  // namespace farskip
