// What the module is in a build without CUDA.
#include "farskip/base/error.h"
#include "farskip/cuda/copy.h"
#include "farskip/cuda/device.h"
#include "farskip/cuda/expert_order.h"
#include "farskip/cuda/expert_product.h"
#include "farskip/cuda/launch_graph.h"
#include "farskip/cuda/loss.h"
#include "farskip/cuda/mlp.h"
#include "farskip/cuda/norm.h"
#include "farskip/cuda/norm_gradient.h"
#include "farskip/cuda/peer_link.h"
#include "farskip/cuda/permutation.h"
#include "farskip/cuda/permutation_gradient.h"
#include "farskip/cuda/rope.h"
#include "farskip/cuda/routing.h"
#include "farskip/cuda/stream_gate.h"

namespace farskip {
namespace {

[[noreturn]] void refuse(const char* function) {
  throw UnsupportedError("this build has no CUDA kernels",
                         {.where = function,
                          .expected = "a libtorch with CUDA and a CUDA compiler",
                          .found = "neither or only one when farskip was configured",
                          .hint = {}});
}

}  // namespace

bool cuda_is_built() { return false; }

bool cuda_is_available() { return false; }

std::string cuda_version() { return "no CUDA (not built in)"; }

namespace cuda {

struct StreamGate::State {};

StreamGate::StreamGate() { refuse("StreamGate"); }
StreamGate::~StreamGate() = default;
void StreamGate::hold(const c10::Stream&, uint32_t) const { refuse("hold"); }
void StreamGate::raise(uint32_t) noexcept {}
void StreamGate::announce(const c10::Stream&, uint32_t) const { refuse("announce"); }
uint32_t StreamGate::announced() const noexcept { return 0; }

void copy_rows_beside_compute(const at::Tensor&, const at::Tensor&, std::span<const RowCopy>) {
  refuse("copy_rows_beside_compute");
}

struct LaunchGraph::State {};

LaunchGraph::LaunchGraph(const c10::Stream&, const std::function<void()>&) {
  refuse("LaunchGraph");
}
LaunchGraph::~LaunchGraph() = default;
LaunchGraph::LaunchGraph(LaunchGraph&&) noexcept = default;
LaunchGraph& LaunchGraph::operator=(LaunchGraph&&) noexcept = default;
void LaunchGraph::launch(const c10::Stream&) const { refuse("launch"); }
void record_event_in_graph(void*, const c10::Stream&) { refuse("record_event_in_graph"); }

struct PrivateMemory::State {};

PrivateMemory::PrivateMemory(at::Device) { refuse("PrivateMemory"); }
PrivateMemory::~PrivateMemory() = default;
int64_t PrivateMemory::make_room() const { refuse("PrivateMemory"); }
PrivateMemory::Use::Use(const PrivateMemory& memory, const c10::Stream&) : memory_(memory) {
  refuse("PrivateMemory");
}
PrivateMemory::Use::~Use() { static_cast<void>(memory_); }

struct PeerLink::State {};

PeerLink::PeerLink(at::Device, at::Device) { refuse("PeerLink"); }
PeerLink::~PeerLink() = default;
void PeerLink::start(const c10::Stream&, const at::Tensor&, const at::Tensor&,
                     std::span<const RowCopy>, double, double) {
  refuse("start");
}
void PeerLink::join(const c10::Stream&) { refuse("join"); }
void PeerLink::release() noexcept {}

ExpertOrder order_by_expert(const at::Tensor&, int64_t) { refuse("order_by_expert"); }

bool has_expert_product(const at::Tensor&, const at::Tensor&) { return false; }

bool fills_gpu(const at::Tensor&, const at::Tensor&) { return false; }

void expert_product_out(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                        const at::Tensor&) {
  refuse("expert_product_out");
}

void expert_swiglu_out(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                       const at::Tensor&, int64_t) {
  refuse("expert_swiglu_out");
}

void sum_out(const at::Tensor&, std::span<const at::Tensor>) { refuse("sum_out"); }

void rms_norm_out(const at::Tensor&, const at::Tensor&, const at::Tensor&, double) {
  refuse("rms_norm_out");
}

void sum_rms_norm_out(const at::Tensor&, const at::Tensor&, std::span<const at::Tensor>,
                      const at::Tensor&, double) {
  refuse("sum_rms_norm_out");
}

void silu_multiply_out(const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  refuse("silu_multiply_out");
}

void silu_multiply_gradient_out(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                const at::Tensor&) {
  refuse("silu_multiply_gradient_out");
}

void rms_norm_gradient_out(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                           const at::Tensor&, double) {
  refuse("rms_norm_gradient_out");
}

at::Tensor rms_norm_weight_gradient(const at::Tensor&, const at::Tensor&, double) {
  refuse("rms_norm_weight_gradient");
}

void cross_entropy_out(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                       const at::Tensor&) {
  refuse("cross_entropy_out");
}

void cross_entropy_gradient_out(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                const at::Tensor&, const at::Tensor&) {
  refuse("cross_entropy_gradient_out");
}

void unpermute_gradient_out(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                            const at::Tensor&) {
  refuse("unpermute_gradient_out");
}

void routing_weights_gradient_out(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                  const at::Tensor&) {
  refuse("routing_weights_gradient_out");
}

void permute_out(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t) {
  refuse("permute_out");
}

void permute_by_inverse_out(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t,
                            int64_t) {
  refuse("permute_by_inverse_out");
}

void permute_quantized_out(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                           const at::Tensor&, int64_t, int64_t) {
  refuse("permute_quantized_out");
}

void dequantize_out(const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  refuse("dequantize_out");
}

void unpermute_out(const at::Tensor&, std::span<const at::Tensor>, const at::Tensor&,
                   const at::Tensor&) {
  refuse("unpermute_out");
}

at::Tensor router_logits(const at::Tensor&, const at::Tensor&, bool) { refuse("router_logits"); }

void choose_experts_out(const RoutingOut&, const RouterRule&, const at::Tensor&,
                        const at::Tensor&) {
  refuse("choose_experts_out");
}

void make_plan_out(const PlanOut&, const at::Tensor&, const at::Tensor&) {
  refuse("make_plan_out");
}

void choose_and_plan_out(const RoutingOut&, const PlanOut&, const RouterRule&, const at::Tensor&,
                         const at::Tensor&, const at::Tensor&) {
  refuse("choose_and_plan_out");
}

void rope_table_out(const at::Tensor&, const at::Tensor&, const at::Tensor&, std::span<const float>,
                    float) {
  refuse("rope_table_out");
}

void grouped_rope_(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                   double, const at::Tensor&, const at::Tensor&, bool) {
  refuse("grouped_rope_");
}

void latent_rope_(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                  const at::Tensor&, bool) {
  refuse("latent_rope_");
}

}  // namespace cuda
}  // namespace farskip
