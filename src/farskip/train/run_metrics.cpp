#include "farskip/train/run_metrics.h"

#include <string_view>

#include "farskip/base/error.h"
#include "farskip/base/files.h"
#include "farskip/base/json.h"

namespace farskip {

std::filesystem::path metrics_path(const std::filesystem::path& run_folder) {
  return run_folder / "metrics.jsonl";
}

std::vector<MetricsLine> read_metrics_lines(const std::filesystem::path& run_folder) {
  const std::string path = metrics_path(run_folder).string();
  const std::string content = read_file(path);
  std::vector<MetricsLine> lines;
  size_t begin = 0;
  for (size_t end; (end = content.find('\n', begin)) != std::string::npos; begin = end + 1) {
    MetricsLine line{.text = content.substr(begin, end - begin),
                     .where = path + ":" + std::to_string(lines.size() + 1)};
    line.json = parse_json(line.text, line.where);
    line.step = require<int64_t>(line.json, "step", line.where);
    lines.push_back(std::move(line));
  }
  return lines;
}

RunMetrics read_run_metrics(const std::filesystem::path& run_folder) {
  RunMetrics metrics;
  int64_t last = 0;
  for (const MetricsLine& line : read_metrics_lines(run_folder)) {
    if (line.step < last) {
      throw ConfigError("steps go back", {.where = line.where,
                                          .expected = "step " + std::to_string(last) + " or later",
                                          .found = std::to_string(line.step)});
    }
    last = line.step;
    const auto tokens = require<int64_t>(line.json, "tokens", line.where);
    if (line.json.contains("validation_loss")) {
      metrics.validation.push_back(
          {line.step, tokens, require<double>(line.json, "validation_loss", line.where)});
    } else {
      metrics.training.push_back({line.step, tokens, require<double>(line.json, "loss", line.where),
                                  require<double>(line.json, "tokens_per_second", line.where)});
    }
  }
  if (metrics.training.empty() && metrics.validation.empty()) {
    throw FileError("the run has reported nothing yet",
                    {.where = metrics_path(run_folder).string()});
  }
  return metrics;
}

}  // namespace farskip
