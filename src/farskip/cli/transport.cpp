#include "farskip/cli/transport.h"

#include <ATen/BlasBackend.h>
#include <ATen/Context.h>
#include <ATen/SDPBackend.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <CLI/CLI.hpp>
#include <numeric>
#include <utility>

#include "farskip/base/environment.h"
#include "farskip/base/error.h"
#include "farskip/cli/commands.h"
#include "farskip/comm/bootstrap.h"
#include "farskip/comm/local.h"
#include "farskip/comm/loopback.h"
#include "farskip/comm/mpi.h"
#include "farskip/comm/nccl.h"
#include "farskip/comm/nccl_api.h"
#include "farskip/cuda/device.h"
#include "farskip/nn/determinism.h"

namespace farskip {
namespace {

using Seconds = std::chrono::duration<double>;

using Groups = std::vector<std::unique_ptr<Group>>;
using Link = std::optional<LinkOptions>;

Groups one(std::unique_ptr<Group> group) {
  Groups groups;
  groups.push_back(std::move(group));
  return groups;
}

// The GPU of this process, ready for use.
at::Device open_gpu(const TransportOptions& options, int index) {
  if (!at::hasCUDA() || !cuda_is_available()) {
    throw UnsupportedError("there is no GPU to run on",
                           {.where = "--device cuda", .found = cuda_version()});
  }
  // cuDNN's attention is the fastest on Hopper and the only fused one for MLA's head sizes.
  using Backend = at::SDPBackend;
  std::vector<int64_t> order;
  for (const Backend backend : {Backend::cudnn_attention, Backend::flash_attention,
                                Backend::efficient_attention, Backend::math}) {
    order.push_back(static_cast<int64_t>(backend));
  }
  at::globalContext().setSDPPriorityOrder(order);
  if (options.free_multiprocessors > 0) {
    at::globalContext()._setSMCarveout_EXPERIMENTAL(options.free_multiprocessors);
    // The library that takes heed of it.
    at::globalContext().setBlasPreferredBackend(at::BlasBackend::Cublaslt);
  }
  const auto count = c10::impl::VirtualGuardImpl(at::kCUDA).deviceCount();
  return {at::kCUDA, static_cast<c10::DeviceIndex>(index % count)};
}

at::Device open_device(const TransportOptions& options) {
  return options.device == "cpu" ? at::Device(at::kCPU) : open_gpu(options, 0);
}

void run_local(const TransportOptions& options, const std::function<void(Ranks&)>& work) {
  Ranks ranks{.size = options.ranks.value_or(options.default_ranks)};
  ranks.here.resize(static_cast<size_t>(ranks.size));
  std::iota(ranks.here.begin(), ranks.here.end(), 0);
  ranks.device = open_device(options);
  ranks.open = [&](const Link&) {
    return make_local_groups(ranks.size, {.deadline = Seconds(options.deadline),
                                          .pin_threads = options.pin_threads,
                                          .device = ranks.device});
  };
  ranks.open_stages = [&](int stages) {
    return make_local_stages(stages, ranks.size / stages,
                             {.deadline = Seconds(options.deadline),
                              .pin_threads = options.pin_threads,
                              .device = ranks.device});
  };
  ranks.groups = ranks.open({});
  work(ranks);
}

// One rank that stands for all.
void run_loopback(const TransportOptions& options, const std::function<void(Ranks&)>& work) {
  Ranks ranks{.size = options.loopback_ranks, .here = {0}};
  if (options.ranks.value_or(ranks.size) != ranks.size) {
    throw UsageError("a loopback group stands for another number of ranks",
                     {.where = "--ranks", .hint = "leave it out and give --loopback-ranks"});
  }
  ranks.device = open_device(options);
  ranks.has_links = options.loopback_path != "pcie";
  const LoopbackPath path = options.loopback_path == "device" ? LoopbackPath::device
                            : options.loopback_path == "peer" ? LoopbackPath::peer
                                                              : LoopbackPath::pcie;
  ranks.open = [&, path](const Link& link) {
    return one(make_loopback_group({.ranks = ranks.size,
                                    .path = path,
                                    .link = link.value_or(LinkOptions{}),
                                    .device = ranks.device,
                                    .deadline = Seconds(options.deadline)}));
  };
  work(ranks);
}

// One rank a GPU; processes as torchrun starts them.
void run_nccl(const TransportOptions& options, const std::function<void(Ranks&)>& work) {
  load_nccl();  // a build without it says so before it asks for a launcher or a GPU
  const LaunchPlace place = Environment::from_process().launch_place();
  Ranks ranks{.size = place.size, .here = {place.rank}};
  std::shared_ptr<Bootstrap> bootstrap;
  try {
    ranks.device = open_gpu(options, place.local_rank);
    bootstrap = join_by_sockets(place, {.deadline = Seconds(options.deadline)});
    ranks.open = [&](const Link&) {
      return one(make_nccl_group(bootstrap, ranks.device,
                                 {.deadline = Seconds(options.deadline), .timed = true}));
    };
    ranks.open_stages = [&](int stages) {
      std::vector<StageRank> one;
      one.push_back(make_nccl_stage(bootstrap, ranks.device, stages,
                                    {.deadline = Seconds(options.deadline), .timed = true}));
      return one;
    };
    ranks.groups = ranks.open({});
    work(ranks);
  } catch (const std::exception& error) {
    const int status = report(error, place.rank);
    if (bootstrap) bootstrap->fail(error.what());
    throw Reported{status};
  }
}

// Before a group is made, so that a flag that is wrong everywhere ends the job in order.
void check_size(const TransportOptions& options, int size) {
  if (options.ranks.value_or(size) == size) return;
  throw UsageError("the job has another number of processes",
                   {.where = "--ranks",
                    .expected = std::to_string(size) + ", as mpirun started",
                    .found = std::to_string(*options.ranks),
                    .hint = "leave --ranks out, or start as many with mpirun -n"});
}

void run_mpi(const TransportOptions& options, const std::function<void(Ranks&)>& work) {
  MpiProcess process{Seconds(options.deadline)};
  Ranks ranks{.size = process.size(), .here = {process.rank()}};
  try {
    check_size(options, ranks.size);
    ranks.open = [&](const Link&) {
      return one(make_mpi_group(
          process, {.deadline = Seconds(options.deadline), .pin_thread = options.pin_threads}));
    };
    ranks.open_stages = [&](int stages) {
      const int of_stage = ranks.size / stages;
      auto open = [&](int part) {
        return make_mpi_group(process, {.deadline = Seconds(options.deadline),
                                        .part = part,
                                        .pin_thread = options.pin_threads});
      };
      std::vector<StageRank> one(1);
      one[0].within = open(process.rank() / of_stage);
      one[0].between = open(process.rank() % of_stage);
      return one;
    };
    ranks.groups = ranks.open({});
    work(ranks);
  } catch (const std::exception& error) {
    const int status = report(error, process.rank());
    process.fail_with(status);
    for (const auto& group : ranks.groups) {
      if (group) {
        group->abort(
            CommError("a rank stopped with an error",
                      {.where = "rank " + std::to_string(process.rank()), .found = error.what()}));
      }
    }
    throw Reported{status};
  }
}

}  // namespace

std::vector<std::unique_ptr<Group>> Ranks::take_groups(const std::optional<LinkOptions>& link) {
  auto taken = groups.empty() ? open(link) : std::exchange(groups, {});
  return link && !has_links ? make_throttled(std::move(taken), *link) : std::move(taken);
}

std::vector<StageRank> Ranks::take_stages(int stages) {
  if (stages == 1) return in_one_stage(take_groups());
  if (stages < 1 || size % stages != 0) {
    throw UsageError("ranks do not divide into pipeline stages",
                     {.where = "--pipeline-stages",
                      .expected = "a divisor of " + std::to_string(size) + " ranks",
                      .found = std::to_string(stages)});
  }
  if (!open_stages) {
    throw UnsupportedError("this transport has no pipeline stages",
                           {.where = "--pipeline-stages",
                            .expected = "ranks over local, mpi or nccl",
                            .found = "another --transport"});
  }
  return open_stages(stages);
}

void add_transport_options(CLI::App& command, TransportOptions& options, int most_ranks) {
  command
      .add_option("--ranks", options.ranks,
                  "ranks that share the experts: threads of this process; over mpi and nccl the "
                  "processes of the job [" +
                      std::to_string(options.default_ranks) + "]")
      ->check(CLI::Range(1, most_ranks));
  command.add_option("--transport", options.name, "how ranks communicate")
      ->capture_default_str()
      ->check(CLI::IsMember({"local", "mpi", "nccl", "loopback"}));
  command
      .add_option("--device", options.device, "where tensors lie and ops run; nccl: cuda always")
      ->capture_default_str()
      ->check(CLI::IsMember({"cpu", "cuda"}));
  command
      .add_option("--loopback-ranks", options.loopback_ranks,
                  "loopback: ranks that one stands for; its results are a load, not a text")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  command
      .add_option(
          "--loopback-path", options.loopback_path,
          "loopback: bytes are copied on the device, or cross to another GPU and back, at the "
          "link's pace; or cross to the host and back")
      ->capture_default_str()
      ->check(CLI::IsMember({"device", "peer", "pcie"}));
  command
      .add_option("--free-multiprocessors", options.free_multiprocessors,
                  "on a GPU: multiprocessors that matrix products leave to communication")
      ->capture_default_str()
      ->check(CLI::Range(0, 64));
  const Environment environment = Environment::from_process();
  options.threads = environment.threads().value_or(options.threads);
  options.deadline = environment.deadline().value_or(Seconds(options.deadline)).count();
  command
      .add_option("--threads", options.threads,
                  "compute threads of each rank; with more than one, chunks and pieces may change "
                  "bits; default FARSKIP_THREADS")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  command
      .add_option("--deadline", options.deadline,
                  "longest wait for another rank, seconds; default FARSKIP_DEADLINE_S")
      ->capture_default_str()
      ->check(CLI::Range(1e-3, 1e7));
}

void with_ranks(const TransportOptions& options, const std::function<void(Ranks&)>& work) {
  prepare_cpu_libraries();
  if (options.name == "loopback") return run_loopback(options, work);
  if (options.name == "nccl") return run_nccl(options, work);
  if (options.name == "mpi" && options.device != "cpu") {
    throw UsageError("mpi moves tensors in host memory only", {.where = "--device cuda"});
  }
  if (options.name == "mpi") return run_mpi(options, work);
  run_local(options, work);
}

}  // namespace farskip
