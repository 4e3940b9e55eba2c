#include "farskip/cli/train_log.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>

#include "farskip/base/error.h"
#include "farskip/base/files.h"
#include "farskip/base/format.h"
#include "farskip/train/run_metrics.h"

namespace farskip {
namespace {

constexpr const char* header =
    "    step      loss  learning rate  gradient norm  max load   tokens/s   TFLOP/s  peak %"
    "  overlapped %  exposed ms  step ms     memory";

std::string percent(double fraction) {
  return fraction > 0 ? format_fixed(100 * fraction, 1) : std::string("-");
}

}  // namespace

TrainLog::TrainLog(const TrainConfig& config, const Ranks& ranks, double peak_flops)
    : config_(config), ranks_(ranks.size), peak_flops_(peak_flops) {}

void TrainLog::started(int64_t parameters, int64_t first_step, const std::string& graph) {
  std::error_code failed;
  std::filesystem::create_directories(config_.out, failed);
  if (failed) {
    throw FileError("the run's folder can not be made",
                    {.where = config_.out, .found = failed.message()});
  }
  write_json_file(std::filesystem::path(config_.out) / "config.json", to_json(config_));
  cut_metrics(first_step);
  std::printf("%s parameters trained on each rank, %d %s, %s\n",
              format_count(static_cast<double>(parameters)).c_str(), ranks_,
              ranks_ == 1 ? "rank" : "ranks", graph.c_str());
  if (config_.routing != "model") {
    std::printf("routing is %s: a measurement, not a training\n", config_.routing.c_str());
  }
  if (first_step > 0) {
    std::printf("resumed behind step %s\n", format_integer(first_step).c_str());
  }
  std::printf("%s%s\n", header, config_.router_losses().any() ? "  router losses" : "");
  std::fflush(stdout);
}

void TrainLog::cut_metrics(int64_t first_step) {
  const std::filesystem::path path = metrics_path(config_.out);
  std::string kept;
  if (first_step > 0 && std::filesystem::exists(path)) {
    for (const MetricsLine& line : read_metrics_lines(config_.out)) {
      if (line.step > first_step) break;
      kept += line.text + "\n";
    }
  }
  write_file_atomically(path, kept);
  metrics_.open(path, std::ios::app);
}

void TrainLog::write(const Json& line) {
  metrics_ << line.dump() << '\n' << std::flush;
  if (metrics_) return;
  throw FileError("the metrics can not be written",
                  {.where = metrics_path(config_.out).string(), .hint = "is the disk full?"});
}

void TrainLog::reported(const TrainReport& r) {
  const std::string overlapped =
      r.percent_overlapped ? format_fixed(*r.percent_overlapped, 1) : std::string("-");
  const std::string max_load = r.max_loads.empty()
                                   ? std::string("-")
                                   : format_fixed(*std::ranges::max_element(r.max_loads), 2);
  std::printf("%8s  %8s  %13.3e  %13s  %8s  %9s  %8s  %6s  %12s  %10s  %7s  %9s",
              format_integer(r.step).c_str(), format_fixed(r.loss, 4).c_str(), r.learning_rate,
              format_fixed(r.gradient_norm, 3).c_str(), max_load.c_str(),
              format_integer(static_cast<int64_t>(r.tokens_per_second)).c_str(),
              format_fixed(r.flops_per_second / 1e12, 3).c_str(),
              percent(peak_flops_ > 0 ? r.flops_per_second / peak_flops_ : 0).c_str(),
              overlapped.c_str(), format_fixed(1e3 * r.exposed_seconds, 1).c_str(),
              format_fixed(1e3 * r.step_seconds, 1).c_str(),
              format_bytes(r.peak_activation_bytes).c_str());
  if (config_.router_losses().any()) {
    const double sum = std::accumulate(r.router_losses.begin(), r.router_losses.end(), 0.0);
    std::printf("  %13s", format_fixed(sum, 5).c_str());
  }
  std::fputc('\n', stdout);
  std::fflush(stdout);
  Json line = {{"step", r.step},
               {"tokens", r.tokens},
               {"loss", r.loss},
               {"learning_rate", r.learning_rate},
               {"gradient_norm", r.gradient_norm},
               {"tokens_per_second", r.tokens_per_second},
               {"flops_per_second", r.flops_per_second},
               {"exposed_seconds", r.exposed_seconds},
               {"step_seconds", r.step_seconds},
               {"peak_activation_bytes", r.peak_activation_bytes},
               {"max_loads", r.max_loads}};
  const RouterLosses losses = config_.router_losses();
  if (losses.balance > 0) line["balance_loss"] = r.router_losses[0];
  if (losses.sequence_balance > 0) line["sequence_balance_loss"] = r.router_losses[1];
  if (losses.z > 0) line["router_z_loss"] = r.router_losses[2];
  if (r.percent_overlapped) line["percent_overlapped"] = *r.percent_overlapped;
  if (peak_flops_ > 0) line["share_of_peak"] = r.flops_per_second / peak_flops_;
  write(line);
}

void TrainLog::validated(int64_t step, double loss) {
  std::printf("%8s  validation loss %s\n", format_integer(step).c_str(),
              format_fixed(loss, 4).c_str());
  std::fflush(stdout);
  write({{"step", step},
         {"tokens", step * config_.sequences * config_.sequence_length},
         {"validation_loss", loss}});
}

void TrainLog::saved(const std::filesystem::path& checkpoint) {
  std::printf("          saved %s\n", checkpoint.string().c_str());
  std::fflush(stdout);
}

void TrainLog::finished(const TrainResult& result) {
  if (result.stopped) {
    std::printf("stopped behind step %s; go on with --resume\n",
                format_integer(result.steps).c_str());
  }
}

}  // namespace farskip
