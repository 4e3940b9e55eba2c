#pragma once

#include <string>
#include <vector>

#include "farskip/plan/plan.h"

namespace farskip {

// What the command line asks `plan` for.
struct PlanOptions {
  std::string model, hardware = "h200";
  std::vector<int> expert_parallel = {8};
  std::vector<double> tokens = {4096};
  double context = 2048;
  std::vector<std::string> connectivities = {"standard", "farskip", "fresh-shared",
                                             "attention-only"};
  int chunks = 4, pieces = 4, layers = 0;
  std::string precision = "bf16", dispatch = "per-rank", form = "all-to-all", routing = "model";
  double imbalance = 1.0;
  bool training = false;
  std::vector<std::string> recompute = {"none", "attention", "experts", "all", "all-and-dispatch"};
  double bucket_mib = 64;
  int micro_batches = 1, pipeline_stages = 1;
  bool json = false;
  std::string trace;
};

// Prints the rows, at least one, as a table or as JSON, and writes traces if they were asked for.
void report_plan(const PlanOptions& options, const ModelConfig& model,
                 const std::vector<PlanRow>& rows);

}  // namespace farskip
