#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "farskip/cli/dispatch.h"
#include "farskip/cli/transport.h"
#include "farskip/io/tokens.h"
#include "farskip/io/weights.h"
#include "farskip/runtime/comparison.h"

namespace farskip {

// What the command line asks `bench` for.
struct BenchOptions {
  std::string model;
  int layers = 0, ranks = 2;  // ranks: as the transport has them
  TransportOptions transport{.default_ranks = 2, .deadline = 120, .pin_threads = true};
  bool random_weights = false;
  int64_t tokens = 256, sequence_length = 0;
  std::string text;
  std::optional<double> link_gbps, link_gb_per_s, link_fill;
  double link_us = 0;
  std::vector<std::string> connectivities = {"standard", "farskip"}, schedules;
  bool two_batch = false, choose = false;
  std::vector<int> chunks = {1}, pieces = {1};
  std::vector<std::string> routing = {"model"};
  DispatchOptions dispatch;
  std::string dtype = "float32";
  bool training = false, deterministic = false;
  int repeat = 5, warm_up = 1;
  bool records = true;
  uint64_t seed = 1;
  bool json = false;
  std::string trace;
};

// What is run.
struct Bench {
  ModelConfig model;
  Placement placement;
  std::vector<Weights> weights;
  TokenBatch tokens;
};

// Prints what was measured, as a table or as JSON, and writes traces if they were asked for.
// `link`: the emulated one, or null; `seen`: what it and real paths carried.
void report_results(const BenchOptions& options, const Bench& bench, const Comparison& comparison,
                    const LinkOptions* link, const std::optional<LinkReport>& seen);

}  // namespace farskip
