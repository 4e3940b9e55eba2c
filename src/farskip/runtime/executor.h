#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "farskip/comm/group.h"
#include "farskip/io/weights.h"
#include "farskip/runtime/kernel.h"
#include "farskip/schedule/schedule.h"
#include "farskip/trace/timeline.h"

namespace farskip {

struct SharedLane;  // shared_lane.h

// The sequences of one rank in one step; none is fine.
struct Batch {
  std::vector<int64_t> lengths;  // tokens of each sequence, 1 or more
  // By the name of the graph's input: [tokens, ...], all sequences one after the other, or of the
  // exact shape that the graph says.
  std::map<std::string, at::Tensor> inputs;
  // Gradients are added to what earlier steps left, instead of replacing it.
  bool adds_gradients = false;
  // To see what ops take on a device that never rests: compute does not wait for collectives that
  // bring numbers alone, and reads whatever lies there. Results mean nothing.
  bool never_waits = false;
};

// What one rank has of one step.
struct StepResult {
  std::vector<at::Tensor> outputs;  // as Graph::outputs: one for each micro-batch
  Timeline timeline;                // without joins
  Traffic traffic;                  // of this step
  int64_t peak_activation_bytes = 0;
  // On a device: what the host spent on launching the step, and of it the ops of its layers, and
  // how often it then waited for the device, for sizes and at the end (which is not in the
  // seconds).
  double host_seconds = 0, layers_host_seconds = 0;
  int host_waits = 0;
};

struct ExecutorOptions {
  KernelState* state = nullptr;  // handed to the kernels
  // Where a backward step puts the gradients of the weights of these names.
  const Weights* gradients = nullptr;
  // Of a stage's graph (graph/pipeline.h): the same rank of every stage, in order. What goes
  // between stages goes through it, everything else through the stage's own group.
  Group* stages = nullptr;
  // Sleeps a random time of up to `chaos_delay_seconds` before every op: results must not change.
  std::optional<uint64_t> chaos_seed;
  double chaos_delay_seconds = 2e-4;
  // Throws NumericError, naming op and tensor, behind the first compute op that makes a value that
  // is not finite. For looking into a step that failed: the host waits for every op.
  bool check_finite = false;
  // On a GPU: what comes again from step to step is recorded and launched together (recordings.h),
  // with memory of its own for each executor; results are the same.
  bool records = true;
  // What executors share whose steps run in turn, on one thread; outlives them. Null: nothing.
  SharedLane* shared = nullptr;
  // Record when each op ran. On a device that costs the host two events an op; without it a
  // timeline has no spans there.
  bool timeline = true;
  // On a device: how long the host may wait for what it has queued, in seconds.
  std::chrono::duration<double> deadline{60};
};

// Runs the steps of one rank on its group's device. The group may be several times as large as the
// placement: rank r then has the experts of the placement's rank r % ranks, and exchanges tokens
// with the ranks of its own set. On a CPU the calling thread is the host and the compute lane, the
// group's thread the communication lane. On a GPU the host queues the compute lane's ops on a
// stream of its own and runs ahead; lanes wait for each other by events, and the host waits only
// where it needs sizes, and at the end. Knows lanes, waits, sizes and the lifetimes of tensors;
// what an op computes is in the kernel table alone. Everything that follows from the graph is
// worked out once, when it is made. One thread at a time, with one intra-op thread.
class Executor {
 public:
  // All arguments must outlive the executor. Throws UnsupportedError for an op without a kernel,
  // ConfigError for a weight or gradient that is missing or has another shape or dtype than the
  // graph says, or ranks that do not agree.
  Executor(const ModelConfig& model, const Placement& placement, const Graph& graph,
           const KernelTable& kernels, const Weights& weights, Group& group,
           ExecutorOptions options = {});
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // One step, behind what the thread has queued on its current stream, new weights for one. Throws
  // ScheduleError for a schedule of another graph, Error for inputs that do not fit the lengths,
  // CommError as the group, and what kernels throw; after one of these the executor can start a new
  // step, though the group may have failed. The schedule must have been verified.
  StepResult run(const Schedule& schedule, const Batch& batch);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace farskip
