#pragma once

#include <functional>
#include <string>
#include <vector>

#include "../base/temporary_folder.h"
#include "farskip/train/train.h"

namespace farskip::testing {

// Small training runs over thread ranks on text that is made up: each token follows from the one
// before it, but for one in eight.
class TrainingJob {
 public:
  // `fixture`: whose model it is.
  explicit TrainingJob(const std::string& fixture = "deepseek_v2");

  const std::filesystem::path& folder() const { return folder_.path(); }
  // Settings of a run into the sub-folder `name`.
  TrainConfig config(const std::string& name) const;

  struct Run {
    std::vector<TrainReport> reports;
    std::vector<std::filesystem::path> saved;
    TrainResult result;
    std::vector<double> losses() const;
  };
  struct Options {
    int ranks = 2;  // of all stages
    bool resume = false;
    int64_t stop_after = 0;  // sets the stop flag once so many steps are reported
    std::function<void(std::vector<Weights>&)> change_weights = {};
    std::string connectivity = "farskip";
    at::Device device = at::kCPU;
  };
  Run run(const TrainConfig& config, const Options& options) const;

 private:
  TemporaryFolder folder_;
  std::string model_text_;
  ModelConfig model_;
};

// Losses of the first `steps` steps, relative to the expected ones.
void expect_near(const std::vector<double>& expected, const std::vector<double>& found,
                 size_t steps, double tolerance);

// The bytes of all rank files of a checkpoint, in order.
std::string state_bytes(const std::filesystem::path& checkpoint);

}  // namespace farskip::testing
