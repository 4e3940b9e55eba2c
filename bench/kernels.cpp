// The CUDA kernels at the sizes of three models, in bf16: GB/s of the bytes that each has to move
// (inputs once, outputs once) and percent of what the memory of an H200 gives, 4.1 TB/s. Every
// launch takes the next of several sets of tensors, so that the cache holds none of them. Of the
// products of experts, beside those of libraries: TFLOP/s.
#include <ATen/TensorOperators.h>
#include <ATen/ops/_grouped_mm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <benchmark/benchmark.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <vector>

#include "farskip/cuda/device.h"
#include "farskip/cuda/expert_product.h"
#include "farskip/cuda/launch.h"
#include "farskip/cuda/mlp.h"
#include "farskip/cuda/norm.h"
#include "farskip/cuda/permutation.h"
#include "farskip/cuda/rope.h"
#include "farskip/cuda/routing.h"

namespace farskip {
namespace {

constexpr double peak = 4.1e12;  // bytes a second, read and written
constexpr double cache = 60e6;   // bytes
constexpr double element = 2;    // bytes of bf16
constexpr double eps = 1e-6;

struct Model {
  int64_t tokens, width;
  int experts, top_k;
  int64_t expert_width;
  int groups, kept_groups;  // DeepSeek-V3's rule where there are several
  int64_t heads, kv_heads;  // latent attention (128 + 64) where they are the same, else 128
};

constexpr Model deepseek_v2_lite{16384, 2048, 64, 6, 1408, 1, 1, 16, 16};
constexpr Model qwen3_30b_a3b{16384, 2048, 128, 8, 768, 1, 1, 32, 4};
constexpr Model deepseek_v3{8192, 7168, 256, 8, 2048, 8, 4, 128, 128};

class Stopwatch {
 public:
  Stopwatch() {
    cuda::check_call(cudaEventCreate(&start_), "cudaEventCreate");
    cuda::check_call(cudaEventCreate(&stop_), "cudaEventCreate");
  }
  ~Stopwatch() {
    cudaEventDestroy(start_);
    cudaEventDestroy(stop_);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  // Seconds on the device that `work` takes, on the current stream.
  double time(const std::function<void()>& work) {
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream().stream();
    cuda::check_call(cudaEventRecord(start_, stream), "cudaEventRecord");
    work();
    cuda::check_call(cudaEventRecord(stop_, stream), "cudaEventRecord");
    cuda::check_call(cudaEventSynchronize(stop_), "cudaEventSynchronize");
    float milliseconds = 0.0f;
    cuda::check_call(cudaEventElapsedTime(&milliseconds, start_, stop_), "cudaEventElapsedTime");
    return milliseconds * 1e-3;
  }

 private:
  cudaEvent_t start_ = nullptr, stop_ = nullptr;
};

using Launch = std::function<void()>;

bool has_gpu(benchmark::State& state) {
  if (cuda_is_available()) return true;
  state.SkipWithError(("no GPU for these kernels: " + cuda_version()).c_str());
  return false;
}

// `make` gives a launch with tensors of its own; `bytes` are what one launch has to move, or
// `flops` what it multiplies and adds.
void measure(benchmark::State& state, double bytes, const std::function<Launch()>& make,
             double flops = 0) {
  if (!has_gpu(state)) return;
  const int sets = std::clamp(static_cast<int>(4 * cache / bytes) + 1, 2, 24);
  std::vector<Launch> launches;
  for (int i = 0; i < sets; ++i) launches.push_back(make());
  const int rounds = std::max(1, 12 / sets);
  const auto work = [&] {
    for (int round = 0; round < rounds; ++round) {
      for (const Launch& launch : launches) launch();
    }
  };
  Stopwatch stopwatch;
  stopwatch.time(work);
  double total = 0.0;
  for (auto _ : state) {
    const double seconds = stopwatch.time(work) / (rounds * sets);
    state.SetIterationTime(seconds);
    total += seconds;
  }
  const auto iterations = static_cast<double>(state.iterations());
  if (flops > 0) {
    state.counters["TFLOP/s"] = flops * iterations / total * 1e-12;
    return;
  }
  const double rate = bytes * iterations / total;
  state.counters["GB/s"] = rate * 1e-9;
  state.counters["percent"] = 100.0 * rate / peak;
}

at::TensorOptions on_gpu(at::ScalarType dtype = at::kBFloat16) {
  return at::TensorOptions(at::kCUDA).dtype(dtype);
}

at::Tensor normal(at::IntArrayRef shape) { return at::randn(shape, on_gpu()); }

double plane(const Model& m) {
  return element * static_cast<double>(m.tokens) * static_cast<double>(m.width);
}

cuda::RouterRule rule_of(const Model& m) {
  cuda::RouterRule rule{.experts = m.experts, .top_k = m.top_k};
  if (m.groups == 1) return rule;
  rule.scoring = cuda::RouterRule::Scoring::sigmoid;
  rule.groups = m.groups;
  rule.kept_groups = m.kept_groups;
  rule.group_score = cuda::RouterRule::GroupScore::sum_of_best_two;
  rule.masked_score = -INFINITY;
  rule.normalize = true;
  rule.scale = 2.5f;
  return rule;
}

// A random routing of the model's size and where its results go.
struct Routed {
  explicit Routed(const Model& m)
      : logits(at::randn({m.tokens, m.experts}, on_gpu(at::kFloat))),
        bias(m.groups > 1 ? at::rand({m.experts}, on_gpu(at::kFloat)) * 0.1 : at::Tensor()),
        positions(at::arange(m.experts, on_gpu(at::kLong))),
        routing{at::empty({m.tokens, m.top_k}, on_gpu(at::kLong)),
                at::empty({m.tokens, m.top_k}, on_gpu(at::kFloat))},
        plan{at::empty({m.tokens * m.top_k}, on_gpu(at::kLong)),
             at::empty({m.tokens * m.top_k}, on_gpu(at::kLong)),
             at::empty({m.experts}, on_gpu(at::kLong))} {
    cuda::choose_and_plan_out(routing, plan, rule_of(m), logits, bias, positions);
  }

  at::Tensor logits, bias, positions;
  cuda::RoutingOut routing;
  cuda::PlanOut plan;
};

void BM_Sum(benchmark::State& state, const Model& m) {
  measure(state, 3 * plane(m), [&]() -> Launch {
    const std::vector<at::Tensor> terms = {normal({m.tokens, m.width}),
                                           normal({m.tokens, m.width})};
    return [terms, out = at::empty_like(terms[0])] { cuda::sum_out(out, terms); };
  });
}

void BM_Norm(benchmark::State& state, const Model& m) {
  measure(state, 2 * plane(m), [&]() -> Launch {
    const at::Tensor x = normal({m.tokens, m.width}), weight = normal({m.width});
    return [=, out = at::empty_like(x)] { cuda::rms_norm_out(out, x, weight, eps); };
  });
}

void BM_SumNorm(benchmark::State& state, const Model& m) {
  measure(state, 4 * plane(m), [&]() -> Launch {
    const std::vector<at::Tensor> terms = {normal({m.tokens, m.width}),
                                           normal({m.tokens, m.width})};
    const at::Tensor weight = normal({m.width});
    return [=, sum = at::empty_like(terms[0]), normed = at::empty_like(terms[0])] {
      cuda::sum_rms_norm_out(sum, normed, terms, weight, eps);
    };
  });
}

void BM_SiluMultiply(benchmark::State& state, const Model& m) {
  const int64_t rows = m.tokens * m.top_k;
  const double bytes = 3 * element * static_cast<double>(rows * m.expert_width);
  measure(state, bytes, [&]() -> Launch {
    const at::Tensor gate_up = normal({rows, 2 * m.expert_width});
    return [gate_up, out = at::empty({rows, m.expert_width}, on_gpu())] {
      cuda::silu_multiply_out(out, gate_up);
    };
  });
}

// Has to read each token once; reads it top_k times.
void BM_Permute(benchmark::State& state, const Model& m) {
  measure(state, (1 + m.top_k) * plane(m), [&]() -> Launch {
    const Routed routed(m);
    const at::Tensor x = normal({m.tokens, m.width});
    return [=, out = at::empty({m.tokens * m.top_k, m.width}, on_gpu()), top_k = m.top_k] {
      cuda::permute_out(out, x, routed.plan.order, top_k);
    };
  });
}

void BM_PermuteByInverse(benchmark::State& state, const Model& m) {
  measure(state, (1 + m.top_k) * plane(m), [&]() -> Launch {
    const Routed routed(m);
    const at::Tensor x = normal({m.tokens, m.width});
    return [=, out = at::empty({m.tokens * m.top_k, m.width}, on_gpu()), top_k = m.top_k] {
      cuda::permute_by_inverse_out(out, x, routed.plan.inverse, top_k);
    };
  });
}

void BM_PermuteQuantized(benchmark::State& state, const Model& m) {
  const double written = 0.5 * (1 + 4.0 / cuda::quantization_block) * m.top_k;
  measure(state, (1 + written) * plane(m), [&]() -> Launch {
    const Routed routed(m);
    const at::Tensor x = normal({m.tokens, m.width});
    const int64_t rows = m.tokens * m.top_k;
    return [=, out = at::empty({rows, m.width}, on_gpu(at::kFloat8_e4m3fn)),
            scales = at::empty({rows, m.width / cuda::quantization_block}, on_gpu(at::kFloat)),
            top_k = m.top_k] {
      cuda::permute_quantized_out(out, scales, x, routed.plan.inverse, top_k);
    };
  });
}

void BM_Unpermute(benchmark::State& state, const Model& m) {
  measure(state, (1 + m.top_k) * plane(m), [&]() -> Launch {
    const Routed routed(m);
    const at::Tensor rows = normal({m.tokens * m.top_k, m.width});
    return [=, out = at::empty({m.tokens, m.width}, on_gpu())] {
      cuda::unpermute_out(out, std::span(&rows, 1), routed.plan.inverse, routed.routing.weights);
    };
  });
}

void BM_Rope(benchmark::State& state, const Model& m) {
  const bool latent = m.heads == m.kv_heads;
  const int64_t nope = 128, rotated = 64, size = 128;
  // Latent: the rotated part of q in place, and k's of all heads; else q and k in place.
  const int64_t moved = latent ? m.heads * 3 * rotated : 2 * (m.heads + m.kv_heads) * size;
  const double bytes = element * static_cast<double>(m.tokens * moved);
  measure(state, bytes, [&]() -> Launch {
    const int64_t pairs = latent ? rotated / 2 : size / 2;
    const at::Tensor cos = at::rand({m.tokens, pairs}, on_gpu(at::kFloat));
    const at::Tensor sin = at::rand({m.tokens, pairs}, on_gpu(at::kFloat));
    if (latent) {
      const at::Tensor q = normal({m.tokens, m.heads, nope + rotated});
      const at::Tensor k_rope = normal({m.tokens, 512 + rotated}).narrow(1, 512, rotated);
      return [=, k = at::empty_like(q)] { cuda::latent_rope_(q, k, k_rope, cos, sin, true); };
    }
    const at::Tensor qkv = normal({m.tokens, (m.heads + 2 * m.kv_heads) * size});
    const at::Tensor q = qkv.narrow(1, 0, m.heads * size).unflatten(1, {m.heads, size});
    const at::Tensor k =
        qkv.narrow(1, m.heads * size, m.kv_heads * size).unflatten(1, {m.kv_heads, size});
    const at::Tensor weight = at::ones({size}, on_gpu());
    return [=] { cuda::grouped_rope_(q, k, weight, weight, eps, cos, sin, false); };
  });
}

// All experts of a model: their rows gathered from tokens, gate and up with a SwiGLU, down.
struct Experts {
  explicit Experts(const Model& m)
      : gate_up(normal({m.experts, 2 * m.expert_width, m.width})),
        down(normal({m.experts, m.width, m.expert_width})) {}
  at::Tensor gate_up, down;
};

struct ExpertWork {
  explicit ExpertWork(const Model& m)
      : routed(m),
        x(normal({m.tokens, m.width})),
        ends(routed.plan.counts.cumsum(0).to(at::kInt)),
        activated(at::empty({m.tokens * m.top_k, m.expert_width}, on_gpu())),
        out(at::empty({m.tokens * m.top_k, m.width}, on_gpu())) {}
  Routed routed;
  at::Tensor x, ends, activated, out;
};

// `run` multiplies the rows of a work by all experts, whose weights every launch shares.
void measure_experts(benchmark::State& state, const Model& m,
                     const std::function<void(const ExpertWork&, const Experts&)>& run) {
  if (!has_gpu(state)) return;
  const Experts experts(m);
  const double rows = static_cast<double>(m.tokens * m.top_k);
  const double matrices = 3.0 * static_cast<double>(m.width * m.expert_width);
  measure(
      state, 2 * m.top_k * plane(m),
      [&]() -> Launch { return [=, work = ExpertWork(m)] { run(work, experts); }; },
      2 * rows * matrices);
}

void BM_Experts(benchmark::State& state, const Model& m) {
  measure_experts(state, m, [top_k = m.top_k](const ExpertWork& work, const Experts& experts) {
    cuda::expert_swiglu_out(work.activated, work.x, experts.gate_up, work.ends,
                            work.routed.plan.order, top_k);
    cuda::expert_product_out(work.out, work.activated, experts.down, work.ends);
  });
}

void BM_ExpertsOfLibraries(benchmark::State& state, const Model& m) {
  measure_experts(state, m, [top_k = m.top_k](const ExpertWork& work, const Experts& experts) {
    cuda::permute_out(work.out, work.x, work.routed.plan.order, top_k);
    const at::Tensor products =
        at::_grouped_mm(work.out, experts.gate_up.transpose(1, 2), work.ends);
    cuda::silu_multiply_out(work.activated, products);
    benchmark::DoNotOptimize(
        at::_grouped_mm(work.activated, experts.down.transpose(1, 2), work.ends));
  });
}

double logits_bytes(const Model& m) { return 4.0 * static_cast<double>(m.tokens * m.experts); }
double routing_bytes(const Model& m) { return 12.0 * static_cast<double>(m.tokens * m.top_k); }
double plan_bytes(const Model& m) { return 16.0 * static_cast<double>(m.tokens * m.top_k); }

void BM_Logits(benchmark::State& state, const Model& m) {
  measure(state, plane(m) + logits_bytes(m), [&]() -> Launch {
    const at::Tensor x = normal({m.tokens, m.width}), weight = normal({m.experts, m.width});
    return [=] { benchmark::DoNotOptimize(cuda::router_logits(x, weight, true)); };
  });
}

void BM_Choose(benchmark::State& state, const Model& m) {
  measure(state, logits_bytes(m) + routing_bytes(m), [&]() -> Launch {
    return [routed = Routed(m), rule = rule_of(m)] {
      cuda::choose_experts_out(routed.routing, rule, routed.logits, routed.bias);
    };
  });
}

void BM_Plan(benchmark::State& state, const Model& m) {
  measure(state, routing_bytes(m) + plan_bytes(m), [&]() -> Launch {
    return [routed = Routed(m)] {
      cuda::make_plan_out(routed.plan, routed.routing.experts, routed.positions);
    };
  });
}

void BM_ChoosePlan(benchmark::State& state, const Model& m) {
  measure(state, logits_bytes(m) + routing_bytes(m) + plan_bytes(m), [&]() -> Launch {
    return [routed = Routed(m), rule = rule_of(m)] {
      cuda::choose_and_plan_out(routed.routing, routed.plan, rule, routed.logits, routed.bias,
                                routed.positions);
    };
  });
}

// All that stands between two communications of a layer: norm, gate, choice, plan.
void BM_NormToPlan(benchmark::State& state, const Model& m) {
  const double bytes = 3 * plane(m) + 2 * logits_bytes(m) + routing_bytes(m) + plan_bytes(m);
  measure(state, bytes, [&]() -> Launch {
    const at::Tensor x = normal({m.tokens, m.width}), weight = normal({m.width});
    const at::Tensor gate = normal({m.experts, m.width});
    return [=, normed = at::empty_like(x), routed = Routed(m), rule = rule_of(m)] {
      cuda::rms_norm_out(normed, x, weight, eps);
      cuda::choose_and_plan_out(routed.routing, routed.plan, rule,
                                cuda::router_logits(normed, gate, true), routed.bias,
                                routed.positions);
    };
  });
}

#define FARSKIP_AT_EVERY_MODEL(function)                          \
  BENCHMARK_CAPTURE(function, deepseek_v2_lite, deepseek_v2_lite) \
      ->UseManualTime()                                           \
      ->MinTime(0.05)                                             \
      ->Unit(benchmark::kMicrosecond);                            \
  BENCHMARK_CAPTURE(function, qwen3_30b_a3b, qwen3_30b_a3b)       \
      ->UseManualTime()                                           \
      ->MinTime(0.05)                                             \
      ->Unit(benchmark::kMicrosecond);                            \
  BENCHMARK_CAPTURE(function, deepseek_v3, deepseek_v3)           \
      ->UseManualTime()                                           \
      ->MinTime(0.05)                                             \
      ->Unit(benchmark::kMicrosecond)

FARSKIP_AT_EVERY_MODEL(BM_Sum);
FARSKIP_AT_EVERY_MODEL(BM_Norm);
FARSKIP_AT_EVERY_MODEL(BM_SumNorm);
FARSKIP_AT_EVERY_MODEL(BM_SiluMultiply);
FARSKIP_AT_EVERY_MODEL(BM_Permute);
FARSKIP_AT_EVERY_MODEL(BM_PermuteByInverse);
FARSKIP_AT_EVERY_MODEL(BM_PermuteQuantized);
FARSKIP_AT_EVERY_MODEL(BM_Unpermute);
FARSKIP_AT_EVERY_MODEL(BM_Experts);
FARSKIP_AT_EVERY_MODEL(BM_ExpertsOfLibraries);
FARSKIP_AT_EVERY_MODEL(BM_Rope);
FARSKIP_AT_EVERY_MODEL(BM_Logits);
FARSKIP_AT_EVERY_MODEL(BM_Choose);
FARSKIP_AT_EVERY_MODEL(BM_Plan);
FARSKIP_AT_EVERY_MODEL(BM_ChoosePlan);
FARSKIP_AT_EVERY_MODEL(BM_NormToPlan);

}  // namespace
}  // namespace farskip
