#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include "farskip/cli/transport.h"
#include "farskip/train/train.h"

namespace farskip {

// What a training run tells: lines on stdout, and metrics.jsonl and config.json in its folder.
class TrainLog final : public TrainObserver {
 public:
  // peak_flops: of all ranks' hardware, 0 where it is not known.
  TrainLog(const TrainConfig& config, const Ranks& ranks, double peak_flops);

  // Makes the run's folder. Throws FileError, as what writes to it.
  void started(int64_t parameters, int64_t first_step, const std::string& graph) override;
  void reported(const TrainReport& report) override;
  void validated(int64_t step, double loss) override;
  void saved(const std::filesystem::path& checkpoint) override;
  void finished(const TrainResult& result);

 private:
  // Keeps the lines of steps that the resumed run will not do again.
  void cut_metrics(int64_t first_step);
  void write(const Json& line);

  const TrainConfig config_;
  const int ranks_;
  const double peak_flops_;
  std::ofstream metrics_;
};

}  // namespace farskip
