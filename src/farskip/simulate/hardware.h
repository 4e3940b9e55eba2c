#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "farskip/graph/graph.h"

namespace farskip {

// How a figure is known. measured: somebody ran it; published: a vendor states it; assumed: derived
// from another figure, the note says how.
enum class Provenance { measured, published, assumed };
const char* to_string(Provenance provenance);

// A figure in SI units (FLOP/s, bytes/s, bytes, seconds) and where it is from. `source` is a key of
// data/hardware/SOURCES.md.
struct Figure {
  double value = 0;
  Provenance provenance = Provenance::assumed;
  std::string source, note;
};

enum class TrafficPattern { all_reduce, all_gather, reduce_scatter, all_to_all };
const char* to_string(TrafficPattern kind);  // "all_reduce", ...

// Measured time of one collective over buffer sizes. The buffer is the total one, as nccl-tests
// count: what a rank holds after an all-gather, before a reduce-scatter.
struct CollectiveTable {
  TrafficPattern kind = TrafficPattern::all_reduce;
  int ranks = 2;
  std::string source;
  std::vector<double> bytes, seconds;  // bytes strictly ascending; at least two
};

// What one kind of accelerator and its network can do, for one rank. Plain data.
struct HardwareProfile {
  std::string name, description;
  // Large dense and grouped matrix products, and the attention core (causal FLOPs), by dtype:
  // float32, bfloat16, float8_e4m3.
  std::map<DType, Figure> gemm, grouped_gemm, attention;  // FLOP/s; a multiply-add counts as 2
  Figure memory_bandwidth;                                // bytes/s
  Figure memory;                                          // bytes
  int domain_ranks = 1;                                   // ranks that the scale-up network joins
  Figure dispatch_bandwidth;  // bytes/s on the wire that one rank sends inside the domain
  Figure combine_bandwidth;
  Figure ring_bandwidth;  // bus bandwidth of large collectives inside the domain, bytes/s
  Figure nic_bandwidth;   // bytes/s that one rank sends to other domains
  // Seconds of a collective that moves next to nothing.
  Figure dispatch_latency, combine_latency;
  Figure all_to_all_latency, all_reduce_latency, all_gather_latency, reduce_scatter_latency;
  Figure inter_node_latency;  // on top, where a collective leaves the domain
  Figure kernel_launch;       // seconds
  // How much longer compute takes while communication runs: SMs lent to it. 1 with copy engines.
  Figure contention_slowdown;
  std::vector<CollectiveTable> tables;

  // The rate for a dtype; float16 runs as bfloat16. Throws ConfigError naming the profile where it
  // has none. FLOP/s.
  double gemm_rate(DType dtype) const;
  double grouped_gemm_rate(DType dtype) const;
  double attention_rate(DType dtype) const;
  const Figure& latency(TrafficPattern kind) const;
};

// Names of the profiles that the library holds, in alphabetical order.
std::vector<std::string> hardware_names();

// A built-in profile by name, or one from a JSON file if the name holds a '/' or ends in ".json".
// Throws ConfigError (the field; or the names there are) or FileError.
HardwareProfile load_hardware(const std::string& name_or_path);

// As load_hardware, from text; `where` names its origin in messages.
HardwareProfile parse_hardware(std::string_view json_text, const std::string& where);

// The profile behind the closed forms of docs/formulas.md: every cost linear in FLOPs and bytes.
// Latencies, launches and size tables gone, no contention, grouped products as fast as dense ones.
HardwareProfile linear_model(HardwareProfile profile);

}  // namespace farskip
