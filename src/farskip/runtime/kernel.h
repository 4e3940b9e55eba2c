#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "farskip/comm/group.h"
#include "farskip/graph/graph.h"
#include "farskip/model/config.h"
#include "farskip/model/placement.h"
#include "farskip/nn/weight_gradient.h"

namespace farskip {

// What the kernels of one rank keep from op to op beyond the graph's values, e.g. tables that
// follow from the placement. The executor passes it on and never looks inside.
class KernelState {
 public:
  virtual ~KernelState() = default;
};

// What a kernel may know besides its tensors.
struct KernelContext {
  const ModelConfig& model;
  const Placement& placement;
  int rank;  // of the placement
  const Op& op;
  // Tokens of each sequence of the op's micro-batch; of the piece, where an op is cut between
  // sequences.
  const std::vector<int64_t>& lengths;
  int64_t first_token;  // of the micro-batch, counted over this rank's tokens
  KernelState* state;   // as given to the executor; may be null
  // The input in host memory, of those that ops which bind sizes read or wrote; on a CPU, of all.
  std::span<const at::Tensor> host_in = {};
  // Those that the op adds to, in the order of Op::accumulates.
  std::span<const WeightGradient> gradients = {};
  // Launches: the input is there once this is passed.
  Event ready = {};
};

using Inputs = std::span<const at::Tensor>;
using Outputs = std::span<at::Tensor>;

// Computes an op on the calling thread, or queues it on the current stream of a device. Outputs
// have their shapes and dtypes and must be written whole; kernels never write inputs. Not called
// where all outputs are empty.
using Kernel = void (*)(const KernelContext& context, Inputs in, Outputs out);
// Posts a communication op and returns at once. Called on every rank whatever the sizes.
using Launch = Work (*)(const KernelContext& context, Group& group, Inputs in, Outputs out);
// The size of a symbol that the op, now finished, binds; tensors are in host memory.
using Bind = int64_t (*)(const KernelContext& context, const Symbol& symbol, Inputs in, Inputs out);

// Whether what the op's kernel queues on a device follows from the op, the lengths of the sequences
// and the addresses and shapes of its tensors alone, and it never waits: it may be queued anew
// without being called. `made`: the dtype of its first output.
using Recordable = bool (*)(const Op& op, at::ScalarType made);

struct KernelEntry {
  Kernel kernel = nullptr;
  Launch launch = nullptr;
  Bind bind = nullptr;
  // The kernel makes its outputs: they come in undefined and it assigns them, except for parts of
  // a larger value, which come in defined like any other kernel's. `deliver` does either.
  bool makes_outputs = false;
  Recordable recordable = nullptr;  // never
  // Rows whose number routing decides may have more room than rows, in inputs and outputs alike:
  // the kernel learns on the device which of them are there.
  bool takes_spare_rows = false;
};

// A kernel that makes its outputs.
inline KernelEntry making(Kernel kernel) { return {.kernel = kernel, .makes_outputs = true}; }

inline KernelEntry recordable(
    KernelEntry entry, Recordable when = [](const Op&, at::ScalarType) { return true; }) {
  entry.recordable = when;
  return entry;
}

inline KernelEntry taking_spare_rows(KernelEntry entry) {
  entry.takes_spare_rows = true;
  return entry;
}

// Gives `result` to an output of a kernel that makes its outputs.
inline void deliver(at::Tensor& out, at::Tensor result) {
  if (out.defined()) {
    out.copy_(result);
  } else {
    out = std::move(result);
  }
}

// Which kernel runs an op kind. Plain data: const members may be called from any thread.
class KernelTable {
 public:
  void add(OpKind kind, KernelEntry entry) { entries_[static_cast<size_t>(kind)] = entry; }
  void add(OpKind kind, Kernel kernel) { add(kind, KernelEntry{.kernel = kernel}); }
  void add(OpKind kind, Launch launch) { add(kind, KernelEntry{.launch = launch}); }

  // Throws UnsupportedError naming the op if there is no kernel for it, none that fits its lane, or
  // none that can bind the symbols that wait for it. A join needs none.
  const KernelEntry& find(const Op& op) const;

 private:
  std::array<KernelEntry, op_kind_count> entries_;
};

// "attention core of layer 3", for errors.
std::string describe(const Op& op);

}  // namespace farskip
