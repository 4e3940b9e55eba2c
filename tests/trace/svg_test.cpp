#include "farskip/trace/svg.h"

#include <gtest/gtest.h>

#include <cmath>
#include <regex>

#include "farskip/base/error.h"
#include "farskip/trace/svg_writer.h"
#include "timelines.h"

namespace farskip {
namespace {

// Three layers one after the other: 1 ms attention, 1 ms dispatch, 2 ms experts, 1 ms combine.
Timeline blocking() {
  Timeline timeline;
  timeline.title = "standard, blocking";
  for (int layer = 1; layer <= 3; ++layer) {
    const double t = (layer - 1) * 5e-3;
    timeline.spans.push_back(compute_span(t, t + 1e-3, "attention_core", layer));
    timeline.spans.push_back(communication_span(t + 1e-3, t + 2e-3, "dispatch", layer));
    timeline.spans.push_back(compute_span(t + 2e-3, t + 4e-3, "experts", layer));
    timeline.spans.push_back(communication_span(t + 4e-3, t + 5e-3, "combine", layer));
  }
  timeline.step_seconds = 15e-3;
  return timeline;
}

int count(const std::string& text, const std::string& what) {
  int found = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

// Every element is closed and closes in order; enough of XML for what svg.cpp writes.
void expect_well_formed(const std::string& svg) {
  std::vector<std::string> open;
  const std::regex tag("<(/?)([a-z]+)((?:[^<>\"]|\"[^<\"]*\")*?)(/?)>");
  size_t tags = 0;
  for (std::sregex_iterator it(svg.begin(), svg.end(), tag), end; it != end; ++it, ++tags) {
    if ((*it)[1].length() > 0) {
      ASSERT_FALSE(open.empty());
      ASSERT_EQ(open.back(), (*it)[2]);
      open.pop_back();
    } else if ((*it)[4].length() == 0) {
      open.push_back((*it)[2]);
    }
  }
  EXPECT_TRUE(open.empty());
  EXPECT_EQ(tags, static_cast<size_t>(count(svg, "<")));
}

TEST(Svg, ShowsLanesFiguresGapsAndTooltips) {
  const Timeline timelines[] = {blocking(), blocking()};
  const std::string svg = svg_picture(timelines, {.title = "one & two"});
  expect_well_formed(svg);
  EXPECT_NE(svg.find("one &amp; two"), std::string::npos);
  EXPECT_EQ(count(svg, "15.0 ms step"), 2);
  EXPECT_EQ(count(svg, "6.00 ms exposed"), 2);
  EXPECT_EQ(count(svg, ">0.0 % overlapped"), 2);
  // combine and the next dispatch are apart: six gaps a row, and the legend's box
  EXPECT_EQ(count(svg, "\"url(#exposed)\""), 13);
  EXPECT_NE(svg.find("experts, layer 2: 2.00 ms (from 7.00 ms to 9.00 ms)"), std::string::npos);
  EXPECT_NE(svg.find(">layer 3<"), std::string::npos);
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(Svg, LayerRangeShowsThatManyPeriods) {
  const Timeline timelines[] = {blocking()};
  const std::string svg = svg_picture(timelines, {.layers = LayerRange{2, 2}});
  expect_well_formed(svg);
  EXPECT_NE(svg.find("experts, layer 2"), std::string::npos);
  EXPECT_EQ(svg.find("layer 1"), std::string::npos);
  EXPECT_EQ(svg.find("layer 3"), std::string::npos);
  EXPECT_NE(svg.find(">5<"), std::string::npos);  // last tick: one period is 5 ms
  EXPECT_EQ(svg.find(">6<"), std::string::npos);
  EXPECT_NE(svg.find("15.0 ms step"), std::string::npos);
}

TEST(Svg, WindowClips) {
  const Timeline timelines[] = {blocking()};
  const std::string svg = svg_picture(timelines, {.window = Interval{1.5e-3, 3e-3}});
  expect_well_formed(svg);
  EXPECT_EQ(svg.find("attention"), svg.find("attention</text>"));  // the legend's only
  EXPECT_NE(svg.find("experts, layer 1"), std::string::npos);
}

TEST(Svg, OptionsThatShowNothingAreRefused) {
  const Timeline timelines[] = {blocking()};
  const Timeline empty[] = {Timeline{}};
  EXPECT_THROW(svg_picture({}, {}), UsageError);
  EXPECT_THROW(svg_picture(empty, {}), UsageError);
  EXPECT_THROW(svg_picture(timelines, {.width = 100}), UsageError);
  EXPECT_THROW(svg_picture(timelines, {.layers = LayerRange{9, 9}}), UsageError);
  EXPECT_THROW(svg_picture(timelines, {.layers = LayerRange{3, 2}}), UsageError);
  EXPECT_THROW(svg_picture(timelines, {.window = Interval{2, 1}}), UsageError);
  EXPECT_THROW(svg_picture(timelines, {.window = Interval{std::nan(""), 1}}), UsageError);
  EXPECT_THROW(svg_picture(timelines, {.window = Interval{0, 1}, .layers = LayerRange{1, 1}}),
               UsageError);
}

TEST(Svg, HostileNamesAndRandomTimelinesStayWellFormed) {
  Random random(3);
  for (int round = 0; round < 100; ++round) {
    Timeline timeline = random_timeline(random);
    if (timeline.step_seconds == 0) continue;
    timeline.title = "</svg><script>\"'&\x01\xff\xc3";
    for (Span& span : timeline.spans) span.name += "<&\"";
    const Timeline timelines[] = {timeline};
    expect_well_formed(svg_picture(timelines, {.title = timeline.title}));
  }
}

TEST(Svg, ManyShortOpsAreDrawnTogether) {
  Timeline timeline;
  for (int i = 0; i < 50000; ++i) {
    timeline.spans.push_back(compute_span(i * 1e-6, (i + 1) * 1e-6, "sum", 1));
  }
  const Timeline timelines[] = {timeline};
  const std::string svg = svg_picture(timelines, {});
  EXPECT_LT(svg.size(), 20000u);
  EXPECT_NE(svg.find("50000 short ops"), std::string::npos);
}

TEST(SvgWriter, TextAndNumbers) {
  EXPECT_EQ(xml_text("a<b>&\"\t\x02"), "a&lt;b&gt;&amp;&quot; ?");
  EXPECT_EQ(xml_text("\xc3\xa9\xc3(\xed\xa0\x80"), "\xc3\xa9?(???");
  EXPECT_EQ(short_time(0), "0 us");
  EXPECT_EQ(short_time(1.5e-6), "1.50 us");
  EXPECT_EQ(short_time(0.99996e-3), "1.00 ms");
  EXPECT_EQ(short_time(123.4e-3), "123 ms");
  EXPECT_EQ(short_time(12), "12.0 s");
}

TEST(SvgWriter, TicksAreRoundAndFewWhateverTheScale) {
  for (double end : {3.1e-6, 9.9e-5, 1e-3, 2.5e-3, 0.017, 0.4, 7.0, 1234.0}) {
    const Ticks ticks = ticks_up_to(end, 9);
    EXPECT_GE(ticks.at.size(), 4u) << end;
    EXPECT_LE(ticks.at.size(), 11u) << end;
    EXPECT_LE(ticks.at.back(), end * (1 + 1e-6));
    EXPECT_EQ(tick_label(ticks, 0).find_first_not_of("0."), std::string::npos);
  }
  EXPECT_EQ(tick_label(ticks_up_to(2.5e-3, 9), 1.5e-3), "1.5");
}

}  // namespace
}  // namespace farskip
