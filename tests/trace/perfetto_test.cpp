#include "farskip/trace/perfetto.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "farskip/base/error.h"
#include "farskip/base/files.h"
#include "timelines.h"

namespace farskip {
namespace {

using Json = nlohmann::json;

Timeline example() {
  Timeline timeline;
  timeline.origin = Timeline::Origin::simulated;
  timeline.title = "a \"quoted\"\\ title\n\xff";
  timeline.rank = 3;
  timeline.spans = {compute_span(0.5e-3, 1.5e-3, "experts", 4),
                    communication_span(2e-3, 5e-3, "dispatch", 5)};
  timeline.spans[1].posted = 1e-3;
  timeline.spans[1].chunk = 2;
  return timeline;
}

TEST(Perfetto, ProcessPerTimelineThreadPerLaneEventPerSpan) {
  const Timeline timelines[] = {example(), example()};
  const Json trace = Json::parse(perfetto_json(timelines));
  std::vector<Json> events;
  int processes = 0, threads = 0;
  for (const Json& event : trace.at("traceEvents")) {
    if (event.at("ph") == "X") events.push_back(event);
    processes += event.at("name") == "process_name";
    threads += event.at("name") == "thread_name";
  }
  EXPECT_EQ(processes, 2);
  EXPECT_EQ(threads, 4);
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[0].at("name"), "experts");
  EXPECT_EQ(events[0].at("args").at("layer"), 4);
  EXPECT_DOUBLE_EQ(events[0].at("ts"), 500);
  EXPECT_DOUBLE_EQ(events[0].at("dur"), 1000);
  EXPECT_FALSE(events[0].at("args").contains("skew_us"));
  EXPECT_EQ(events[1].at("args").at("chunk"), 2);
  EXPECT_DOUBLE_EQ(events[1].at("args").at("skew_us"), 1000);
  EXPECT_NE(events[0].at("tid"), events[1].at("tid"));
  EXPECT_NE(events[1].at("pid"), events[3].at("pid"));
  const std::string name = trace.at("traceEvents")[0].at("args").at("name");
  EXPECT_NE(name.find("\"quoted\""), std::string::npos);
  EXPECT_NE(name.find("(simulated), rank 3"), std::string::npos);
}

TEST(Perfetto, NoTimelineIsStillATrace) {
  EXPECT_TRUE(Json::parse(perfetto_json({})).at("traceEvents").empty());
}

TEST(Perfetto, FileHoldsTheTextAndAMissingFolderIsAFileError) {
  const std::filesystem::path path =
      std::filesystem::path(testing::TempDir()) / "farskip_perfetto_test.json";
  const Timeline timelines[] = {example()};
  write_perfetto(path, timelines);
  EXPECT_EQ(read_file(path), perfetto_json(timelines));
  std::filesystem::remove(path);
  EXPECT_THROW(write_perfetto(path / "no" / "folder.json", timelines), FileError);
}

}  // namespace
}  // namespace farskip
