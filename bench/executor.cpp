#include "farskip/runtime/executor.h"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>
#include <benchmark/benchmark.h>

#include "farskip/comm/local.h"

namespace farskip {
namespace {

constexpr int64_t width = 16;

void do_nothing(const KernelContext&, Inputs, Outputs) {}

Work start_at_once(const KernelContext& context, Group& group, Inputs in, Outputs out) {
  return group.all_reduce(out[0], in[0], context.op.id);
}

// `ops` ops, each of which reads what the one before made; with `hand_over` every other one is a
// collective, so that each op waits for the other lane.
Graph chain(int ops, bool hand_over) {
  GraphBuilder builder;
  const SymbolId tokens =
      builder.add_symbol({.kind = Symbol::Kind::tokens, .name = "tokens", .expected = 4});
  ValueId last = builder.add_value(
      {.kind = ValueKind::input, .name = "input_ids", .shape = {{1, tokens}, {width}}});
  for (int i = 0; i < ops; ++i) {
    const ValueId next = builder.add_value({.name = "rows", .shape = {{1, tokens}, {width}}});
    const bool collective = hand_over && i % 2 == 1;
    builder.add_op(collective ? OpKind::all_reduce : OpKind::sum, {}, {last}, {next});
    last = next;
  }
  builder.add_output(last);
  return builder.finish();
}

void run_chain(benchmark::State& state, bool hand_over) {
  at::set_num_threads(1);
  const int ops = static_cast<int>(state.range(0));
  const Graph graph = chain(ops, hand_over);
  const Schedule schedule = blocking_schedule(graph);
  const ModelConfig model;
  const Placement placement = Placement::contiguous(1, 1);
  KernelTable kernels;
  kernels.add(OpKind::sum, do_nothing);
  kernels.add(OpKind::all_reduce, start_at_once);
  const auto groups = make_local_groups(1);
  Executor executor(model, placement, graph, kernels, {}, *groups[0]);
  const Batch batch{.lengths = {4}, .inputs = {{"input_ids", at::zeros({4, width})}}};
  for (auto _ : state) benchmark::DoNotOptimize(executor.run(schedule, batch));
  state.counters["per_op"] =
      benchmark::Counter(static_cast<double>(state.iterations() * ops),
                         benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

// The executor's own cost: empty kernels on the compute lane.
void BM_OneLane(benchmark::State& state) { run_chain(state, false); }
BENCHMARK(BM_OneLane)->Arg(100)->Arg(1000)->UseRealTime();

// Every op waits for one on the other lane: a collective of a single rank, posted to its thread,
// and the wait for it.
void BM_HandOver(benchmark::State& state) { run_chain(state, true); }
BENCHMARK(BM_HandOver)->Arg(100)->UseRealTime();

}  // namespace
}  // namespace farskip
