#include "farskip/trace/metrics.h"

#include <gtest/gtest.h>

#include <limits>

#include "farskip/base/error.h"
#include "farskip/trace/category.h"
#include "timelines.h"

namespace farskip {
namespace {

TEST(OverlapMetrics, ByHand) {
  Timeline timeline;
  timeline.step_seconds = 12;
  // compute  [0 4)      [6 8) [8 10)        idle 4..6 and 10..12
  // network    [2 5)      [7     11)        dispatch posted at 1, combine at 7
  timeline.spans = {compute_span(0, 4), compute_span(8, 10), compute_span(6, 8),
                    communication_span(2, 5), communication_span(7, 11, "combine")};
  timeline.spans[3].posted = 1;
  const OverlapMetrics metrics = measure_overlap(timeline);
  EXPECT_EQ(metrics.step, 12);
  EXPECT_EQ(metrics.compute, 8);
  EXPECT_EQ(metrics.idle_compute, 4);
  EXPECT_EQ(metrics.communication, 7);
  EXPECT_EQ(metrics.overlapped, 5);
  EXPECT_EQ(metrics.exposed, 2);
  EXPECT_EQ(metrics.skew, 1);
  EXPECT_NEAR(metrics.percent_overlapped.value(), 500.0 / 7, 1e-12);
  EXPECT_EQ(metrics.interior_communication, 0);
  EXPECT_FALSE(metrics.interior_percent.has_value());
  EXPECT_EQ(exposed_time(timeline), (Intervals{{4, 5}, {10, 11}}));
}

TEST(OverlapMetrics, OfChosenSpansAlone) {
  Timeline timeline;
  timeline.spans = {compute_span(0, 4), communication_span(2, 6),
                    communication_span(1, 3, "combine"), communication_span(7, 8, "counts")};
  auto of = [&](const std::string& name) {
    return percent_overlapped(timeline, [&](const Span& span) { return span.name == name; });
  };
  EXPECT_EQ(of("dispatch"), 50.0);
  EXPECT_EQ(of("combine"), 100.0);
  EXPECT_EQ(of("counts"), 0.0);
  EXPECT_EQ(of("all-reduce"), std::nullopt);
}

TEST(OverlapMetrics, InteriorLeavesOutOneFirstDispatchAndOneLastCombine) {
  Timeline timeline;
  timeline.step_seconds = 20;
  timeline.spans = {
      communication_span(1, 2, "dispatch", 1),  // first: left out, though listed before a chunk
      communication_span(2, 3, "dispatch", 1),
      communication_span(0, 0.5, "counts", 1),
      communication_span(8, 12, "combine", 1),
      communication_span(16, 18, "combine", 2),
      communication_span(18, 20, "combine", 2),
      compute_span(8, 11),
      compute_span(16, 17),
  };
  const OverlapMetrics metrics = measure_overlap(timeline);
  EXPECT_EQ(metrics.communication, 10.5);
  EXPECT_EQ(metrics.exposed, 6.5);
  EXPECT_EQ(metrics.interior_communication, 7.5);  // counts 0.5, chunk 1, combines 4 and 2
  EXPECT_EQ(metrics.interior_exposed, 3.5);
  EXPECT_NEAR(metrics.interior_percent.value(), 100 * 4 / 7.5, 1e-12);
}

TEST(OverlapMetrics, EmptyLanes) {
  EXPECT_EQ(measure_overlap({}).step, 0);
  EXPECT_FALSE(measure_overlap({}).percent_overlapped.has_value());

  Timeline compute_only;
  compute_only.step_seconds = 3;
  compute_only.spans = {compute_span(0, 2)};
  EXPECT_EQ(measure_overlap(compute_only).idle_compute, 1);
  EXPECT_FALSE(measure_overlap(compute_only).percent_overlapped.has_value());

  Timeline communication_only;
  communication_only.spans = {communication_span(0, 2, "all_reduce")};
  const OverlapMetrics metrics = measure_overlap(communication_only);
  EXPECT_EQ(metrics.step, 2);  // step_seconds said 0
  EXPECT_EQ(metrics.exposed, 2);
  EXPECT_EQ(metrics.percent_overlapped, 0.0);
  EXPECT_EQ(metrics.interior_exposed, 2);  // an all-reduce is never taken out
}

TEST(OverlapMetrics, ImpossibleTimesAreRefused) {
  Timeline timeline;
  timeline.title = "broken";
  timeline.spans = {compute_span(2, 1)};
  EXPECT_THROW(measure_overlap(timeline), Error);
  timeline.spans = {compute_span(0, std::numeric_limits<double>::infinity())};
  EXPECT_THROW(measure_overlap(timeline), Error);
  timeline.spans = {compute_span(0, 1)};
  timeline.spans[0].posted = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(measure_overlap(timeline), Error);
}

// The same figures by asking at the middle of every cell of the grid which lanes run.
struct Sampled {
  double compute = 0, communication = 0, overlapped = 0;
};

Sampled sample(const Timeline& timeline, const Span* without1, const Span* without2) {
  Sampled sampled;
  for (int cell = 0; cell < 16 * 9; ++cell) {
    const double at = (cell + 0.5) / 16;
    bool compute = false, communication = false;
    for (const Span& span : timeline.spans) {
      if (at < span.start || at > span.end || &span == without1 || &span == without2) continue;
      (span.lane == Lane::compute ? compute : communication) = true;
    }
    if (compute) sampled.compute += 1.0 / 16;
    if (communication) sampled.communication += 1.0 / 16;
    if (compute && communication) sampled.overlapped += 1.0 / 16;
  }
  return sampled;
}

TEST(OverlapMetrics, AgreeWithSamplingOnRandomTimelines) {
  Random random(7);
  for (int round = 0; round < 3000; ++round) {
    const Timeline timeline = random_timeline(random);
    const OverlapMetrics metrics = measure_overlap(timeline);
    const Sampled sampled = sample(timeline, nullptr, nullptr);
    ASSERT_EQ(metrics.compute, sampled.compute);
    ASSERT_EQ(metrics.communication, sampled.communication);
    ASSERT_EQ(metrics.overlapped, sampled.overlapped);
    ASSERT_EQ(metrics.overlapped + metrics.exposed, metrics.communication);
    ASSERT_EQ(metrics.compute + metrics.idle_compute, metrics.step);
    ASSERT_EQ(metrics.percent_overlapped.has_value(), metrics.communication > 0);

    const Span *first = nullptr, *last = nullptr;
    for (const Span& span : timeline.spans) {
      if (span.name == "dispatch" && (!first || span.start < first->start)) first = &span;
      if (span.name == "combine" && (!last || span.end > last->end)) last = &span;
    }
    const Sampled inside = sample(timeline, first, last);
    ASSERT_EQ(metrics.interior_communication, inside.communication);
    ASSERT_EQ(metrics.interior_exposed, inside.communication - inside.overlapped);
    for (const auto& share : {metrics.percent_overlapped, metrics.interior_percent}) {
      if (share) {
        ASSERT_TRUE(*share >= 0 && *share <= 100) << *share;
      }
    }
  }
}

TEST(SpanCategory, FollowsLaneAndWords) {
  EXPECT_EQ(category_of(communication_span(0, 1, "dispatch")), SpanCategory::dispatch);
  EXPECT_EQ(category_of(communication_span(0, 1, "counts")), SpanCategory::other_communication);
  EXPECT_EQ(category_of(compute_span(0, 1, "attention_core")), SpanCategory::attention);
  EXPECT_EQ(category_of(compute_span(0, 1, "output_projection")), SpanCategory::attention);
  EXPECT_EQ(category_of(compute_span(0, 1, "shared_experts")), SpanCategory::dense);
  EXPECT_EQ(category_of(compute_span(0, 1, "dense_mlp")), SpanCategory::dense);
  EXPECT_EQ(category_of(compute_span(0, 1, "experts")), SpanCategory::routed);
  EXPECT_EQ(category_of(compute_span(0, 1, "permute")), SpanCategory::small);
}

}  // namespace
}  // namespace farskip
