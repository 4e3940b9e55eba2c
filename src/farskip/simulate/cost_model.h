#pragma once

#include "farskip/graph/graph.h"
#include "farskip/schedule/evaluate.h"
#include "farskip/schedule/schedule.h"
#include "farskip/simulate/hardware.h"

namespace farskip {

struct CostOptions {
  // What matrix products run in; float8_e4m3 leaves the attention core in the graph's dtype.
  DType gemm = DType::bfloat16;
};

// Seconds of every op on this hardware: compute at the larger of FLOPs over the measured rate and
// bytes over the memory bandwidth, and a launch for each of its kernels; communication by
// collectives.h at expected sizes. Throws ConfigError where the profile lacks a rate.
Durations roofline_durations(const Graph& graph, const HardwareProfile& hardware,
                             const CostOptions& options = {});

// Slow-down of either lane while both run, and the host in front of a device.
Contention contention_of(const HardwareProfile& hardware);
HostModel host_of(const HardwareProfile& hardware);

}  // namespace farskip
