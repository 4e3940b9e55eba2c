// What touches the process around the library: environment, progress line, thread settings.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "farskip/base/environment.h"
#include "farskip/base/error.h"
#include "farskip/base/progress.h"
#include "farskip/base/threads.h"

namespace farskip {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

// A stream that keeps what is written to it.
class Capture {
 public:
  Capture() : stream_(std::tmpfile()) {}
  ~Capture() { std::fclose(stream_); }
  std::FILE* stream() { return stream_; }
  std::string text() {
    std::string result(static_cast<size_t>(std::ftell(stream_)), '\0');
    std::rewind(stream_);
    result.resize(std::fread(result.data(), 1, result.size(), stream_));
    return result;
  }

 private:
  std::FILE* stream_;
};

TEST(Environment, DefaultsAndValues) {
  const Environment none(Environment::Values{{"FARSKIP_THREADS", ""}});
  EXPECT_EQ(none.threads(), std::nullopt);
  EXPECT_EQ(none.deadline(), std::nullopt);
  const Environment some(
      Environment::Values{{"FARSKIP_THREADS", "2"}, {"FARSKIP_DEADLINE_S", "0.5"}});
  EXPECT_EQ(some.threads(), 2);
  EXPECT_EQ(some.deadline()->count(), 0.5);
}

Environment::Values launched() {
  return {{"RANK", "3"},
          {"WORLD_SIZE", "4"},
          {"LOCAL_RANK", "1"},
          {"MASTER_ADDR", "node0"},
          {"MASTER_PORT", "29500"}};
}

TEST(Environment, LaunchPlace) {
  EXPECT_FALSE(Environment(Environment::Values{}).is_launched());
  Environment::Values values = launched();
  EXPECT_TRUE(Environment(values).is_launched());
  LaunchPlace place = Environment(values).launch_place();
  EXPECT_EQ(place.rank, 3);
  EXPECT_EQ(place.size, 4);
  EXPECT_EQ(place.local_rank, 1);
  EXPECT_EQ(place.address, "node0");
  EXPECT_EQ(place.port, 29500);
  EXPECT_EQ(place.bind_address, "");
  values["FARSKIP_PORT"] = "4000";
  values["FARSKIP_BIND"] = "10.0.0.1";
  values.erase("MASTER_ADDR");
  place = Environment(values).launch_place();
  EXPECT_EQ(place.address, "127.0.0.1");
  EXPECT_EQ(place.port, 4000);
  EXPECT_EQ(place.bind_address, "10.0.0.1");
  const Environment alone({{"RANK", "0"}, {"WORLD_SIZE", "1"}, {"LOCAL_RANK", "0"}});
  EXPECT_EQ(alone.launch_place().port, 0);
}

TEST(Environment, WrongOrMissingLaunchVariablesAreNamed) {
  const auto message = [](const Environment::Values& values) -> std::string {
    try {
      Environment(values).launch_place();
    } catch (const UsageError& error) {
      return error.what();
    }
    return "";
  };
  for (const char* name : {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"}) {
    for (const char* value : {"", "x", "-1", "1.5", "99999999999", "70000"}) {
      Environment::Values values = launched();
      values[name] = value;
      EXPECT_THAT(message(values), HasSubstr(name)) << value;
    }
  }
  Environment::Values values = launched();
  values["RANK"] = "4";
  EXPECT_THAT(message(values), HasSubstr("an integer from 0 to 3"));
}

TEST(Environment, ReadsTheProcess) {
  ASSERT_EQ(::setenv("FARSKIP_THREADS", "3", 1), 0);
  EXPECT_EQ(Environment::from_process().threads(), 3);
  ASSERT_EQ(::unsetenv("FARSKIP_THREADS"), 0);
  EXPECT_EQ(Environment::from_process().threads(), std::nullopt);
}

TEST(Environment, SenselessValuesNameTheVariable) {
  for (const char* value : {"0", "-1", "two", "1.5", "99999999999999", " 1", "1 "}) {
    const Environment environment(Environment::Values{{"FARSKIP_THREADS", value}});
    EXPECT_THROW(environment.threads(), UsageError) << value;
  }
  for (const char* value : {"0", "-1", "nan", "inf", "1s", "1e9"}) {
    const Environment environment(Environment::Values{{"FARSKIP_DEADLINE_S", value}});
    EXPECT_THROW(environment.deadline(), UsageError) << value;
  }
  try {
    Environment(Environment::Values{{"FARSKIP_THREADS", "many"}}).threads();
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("FARSKIP_THREADS: wrong value"));
    EXPECT_THAT(error.what(), HasSubstr("found 'many'"));
  }
}

TEST(Progress, SilentWhenNotATerminalOrTooEarly) {
  Capture capture;
  {
    Progress file("work", 10, capture.stream(), milliseconds(0));
    file.update(1);
    Progress early("work", 10, capture.stream(), std::chrono::seconds(60), true);
    early.update(1);
  }
  EXPECT_EQ(capture.text(), "");
}

TEST(Progress, DrawsThrottledAndWipesItself) {
  Capture capture;
  {
    Progress progress("work", 20, capture.stream(), milliseconds(0), true);
    for (int step = 3; step <= 20; ++step) progress.update(step, "layer");
  }
  const std::string text = capture.text();
  EXPECT_TRUE(text.starts_with("\rwork 3/20 15 % layer\x1b[K")) << text;
  EXPECT_TRUE(text.ends_with("\r\x1b[K"));
  EXPECT_LE(std::count(text.begin(), text.end(), '\r'), 4);
}

TEST(Progress, CutsTheLineToTheTerminal) {
  Capture capture;
  {
    Progress progress("work", 0, capture.stream(), milliseconds(0), true);
    std::string note;
    for (int i = 0; i < 100; ++i) note += "é";
    progress.update(1, note);
  }
  EXPECT_THAT(capture.text(), testing::StartsWith("\rwork 1 éé"));
  EXPECT_EQ(capture.text().find("é\x1b[K"), 1 + 7 + 2 * (79 - 7) - 2);
}

TEST(Threads, PinsNamesAndSlackWork) {
  const std::vector<int> cores = usable_cores();
  ASSERT_FALSE(cores.empty());
  EXPECT_TRUE(std::ranges::is_sorted(cores));
  std::jthread([&] {
    EXPECT_TRUE(pin_thread_to_core(cores.back()));
    EXPECT_EQ(::sched_getcpu(), cores.back());
    EXPECT_EQ(usable_cores(), cores);
    EXPECT_TRUE(name_thread("a-name-longer-than-the-kernel-takes"));
    std::array<char, 16> name{};
    ::pthread_getname_np(::pthread_self(), name.data(), name.size());
    EXPECT_STREQ(name.data(), "a-name-longer-t");
    EXPECT_TRUE(set_timer_slack(std::chrono::microseconds(1)));
  });
}

TEST(Threads, ImpossibleRequestsAnswerFalse) {
  EXPECT_FALSE(pin_thread_to_core(-1));
  EXPECT_FALSE(pin_thread_to_core(1000000));
  EXPECT_FALSE(pin_thread_to_core(1023));
  EXPECT_FALSE(set_timer_slack(std::chrono::nanoseconds(0)));
}

TEST(Threads, PrioritiesAnswerWithoutHarm) {
  std::jthread([] {
    const bool real_time = try_real_time_priority();
    const bool high = try_high_priority();
    testing::Test::RecordProperty("real_time", real_time);
    testing::Test::RecordProperty("high", high);
  });
}

}  // namespace
}  // namespace farskip
