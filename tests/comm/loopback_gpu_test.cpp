#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gtest/gtest.h>

#include "../gpu.h"
#include "farskip/comm/loopback.h"

namespace farskip {
namespace {

class LoopbackGpu : public testing::GpuTest {
 protected:
  static std::unique_ptr<Group> make(int ranks, LinkOptions link,
                                     LoopbackPath path = LoopbackPath::device) {
    return make_loopback_group({.ranks = ranks,
                                .rank = 1,
                                .path = path,
                                .link = link,
                                .device = at::Device(at::kCUDA, 0),
                                .deadline = std::chrono::seconds(20)});
  }
  static at::Tensor on_gpu(int64_t rows, int64_t width) {
    return at::arange(rows * width, at::TensorOptions(at::kFloat).device(at::kCUDA))
        .view({rows, width});
  }
};

TEST_F(LoopbackGpu, BringsWhatTheCpuBrings) {
  const std::vector<int64_t> sent = {4, 2, 1}, received = {5, 2, 9};
  const at::Tensor in = on_gpu(7, 300);
  const at::Tensor host_in = in.cpu(), expected = at::empty({16, 300});
  make_loopback_group({.ranks = 3, .rank = 1})
      ->all_to_all(expected, host_in, received, sent, 1)
      .synchronize();
  const auto check = [&](Group& group) {
    const at::Tensor out = at::empty({16, 300}, in.options());
    const Event ready = Event::record(group.stream());
    in.cpu();  // `in` is there
    const Work work = group.all_to_all(out, in, received, sent, 1, ready);
    work.synchronize();
    EXPECT_TRUE(at::equal(out.cpu(), expected)) << group.describe();
    EXPECT_EQ(group.traffic().bytes_received, 14 * 300 * 4);
  };
  check(*make(3, {}));
  check(*make(3, {.bytes_per_second = 1e9, .latency_seconds = 1e-5}));
  check(*make(3, {}, LoopbackPath::pcie));
  if (c10::impl::VirtualGuardImpl(at::kCUDA).deviceCount() < 2) {
    EXPECT_THROW(make(3, {}, LoopbackPath::peer), UnsupportedError);
    return;
  }
  check(*make(3, {}, LoopbackPath::peer));
  check(*make(3, {.bytes_per_second = 1e9, .latency_seconds = 1e-5}, LoopbackPath::peer));
}

// Paths that keep the pace of a link on this machine.
std::vector<LoopbackPath> paced_paths() {
  if (c10::impl::VirtualGuardImpl(at::kCUDA).deviceCount() < 2) return {LoopbackPath::device};
  return {LoopbackPath::device, LoopbackPath::peer};
}

TEST_F(LoopbackGpu, PacedPathsKeepToTheirLink) {
  const std::vector<int64_t> rows(8, 4096);
  const at::Tensor in = on_gpu(8 * 4096, 2048), out = at::empty_like(in);
  in.narrow(0, 0, 1).cpu();
  for (const LoopbackPath path : paced_paths()) {
    for (const double gigabytes : {50.0, 300.0}) {
      const LinkOptions link{.bytes_per_second = gigabytes * 1e9, .latency_seconds = 10e-6};
      const auto group = make(8, link, path);
      std::vector<Work> works;
      for (Tag tag = 0; tag < 12; ++tag) {
        if (tag == 2) {
          for (const Work& work : works) work.synchronize();
          reset_link_report(*group);
        }
        works.push_back(group->all_to_all(out, in, rows, rows, tag));
      }
      for (const Work& work : works) work.synchronize();
      const auto report = link_report(*group);
      ASSERT_TRUE(report);
      EXPECT_EQ(report->collectives, 10);
      EXPECT_NEAR(report->achieved_bytes_per_second() / link.bytes_per_second, 1, 0.03)
          << group->describe() << ", late by " << report->p50_late_us << " us";
    }
  }
}

TEST_F(LoopbackGpu, AnAbortLetsAHeldStreamGo) {
  const std::vector<int64_t> rows = {1000, 1000};
  const at::Tensor in = on_gpu(2000, 100), out = at::empty_like(in);
  for (const LoopbackPath path : paced_paths()) {
    const auto group = make(2, {.bytes_per_second = 1e3, .latency_seconds = 0}, path);
    const Work work = group->all_to_all(out, in, rows, rows, 1);
    EXPECT_FALSE(work.done());
    group->abort(CommError("enough"));
    EXPECT_THROW(work.synchronize(), CommError);
    EXPECT_THROW(group->barrier(2), CommError);
    in.cpu();
  }
}

}  // namespace
}  // namespace farskip
