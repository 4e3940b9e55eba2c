#include "farskip/trace/unhidden.h"

#include <gtest/gtest.h>

#include "timelines.h"

namespace farskip {
namespace {

Span op(int id, Span span) {
  span.op = id;
  return span;
}

// A combine that was to run beside the shared experts, which came late.
Timeline step_with(double shared_start, Timeline::Origin origin) {
  Timeline timeline;
  timeline.origin = origin;
  timeline.step_seconds = 1.0;
  timeline.spans = {op(0, compute_span(0, 0.2)), op(1, communication_span(0.2, 0.5, "dispatch")),
                    op(2, compute_span(shared_start, shared_start + 0.3)),
                    op(3, compute_span(0.8, 1.0))};
  return timeline;
}

TEST(Unhidden, NamesTheWorstCollectiveAndWhatCameNext) {
  const Timeline asked = step_with(0.2, Timeline::Origin::simulated);
  const auto worst = find_unhidden(step_with(0.45, Timeline::Origin::measured), asked);
  ASSERT_TRUE(worst);
  EXPECT_EQ(worst->collective.op, 1);
  EXPECT_NEAR(worst->exposed, 0.25, 1e-12);
  EXPECT_EQ(worst->predicted, 0);
  ASSERT_TRUE(worst->held_up);
  EXPECT_EQ(worst->held_up->op, 2);
  EXPECT_FALSE(worst->by);
  EXPECT_NE(describe(*worst).find("the host launched late"), std::string::npos);
}

TEST(Unhidden, NamesWhatWasWaitedFor) {
  const Timeline asked = step_with(0.2, Timeline::Origin::simulated);
  const auto worst = find_unhidden(step_with(0.5, Timeline::Origin::measured), asked);
  ASSERT_TRUE(worst && worst->by);
  EXPECT_EQ(worst->by->op, 1);
  EXPECT_NE(describe(*worst).find("waited for dispatch"), std::string::npos);
}

TEST(Unhidden, SaysNothingWhereItWentAsPredicted) {
  const Timeline asked = step_with(0.3, Timeline::Origin::simulated);
  EXPECT_FALSE(find_unhidden(step_with(0.3, Timeline::Origin::measured), asked));
  EXPECT_FALSE(find_unhidden(step_with(0.31, Timeline::Origin::measured), asked));
  EXPECT_FALSE(find_unhidden(Timeline{}, Timeline{}));
}

}  // namespace
}  // namespace farskip
