#include "farskip/train/rank_meeting.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "farskip/base/error.h"
#include "thread_meeting.h"

namespace farskip {
namespace {

using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(RankMeeting, EveryRankGetsWhatAllReturned) {
  const Outcomes outcomes = run_meeting(4, [](const RankMeeting& meeting) {
    for (int round = 0; round < 50; ++round) {
      const auto results = work_and_meet(meeting, [&]() -> Json {
        return {{"value", 10 * meeting.rank + round}};
      });
      ASSERT_EQ(results.size(), 4U);
      for (int rank = 0; rank < 4; ++rank) {
        EXPECT_EQ(results[static_cast<size_t>(rank)].at("value"), 10 * rank + round);
      }
    }
  });
  EXPECT_THAT(outcomes, Each(IsEmpty()));
}

TEST(RankMeeting, OneFailureIsEverybodys) {
  const Outcomes outcomes = run_meeting(3, [](const RankMeeting& meeting) {
    work_and_meet(meeting, [&]() -> Json {
      if (meeting.rank == 1) throw ConfigError("no room", {.where = "here"});
      return {};
    });
  });
  EXPECT_EQ(outcomes[1], "here: no room");
  EXPECT_EQ(outcomes[0], "rank 1: another rank failed (found here: no room)");
  EXPECT_EQ(outcomes[2], outcomes[0]);
}

TEST(RankMeeting, TypesOfFailures) {
  run_meeting(2, [](const RankMeeting& meeting) {
    const auto fail = [&]() -> Json {
      if (meeting.rank == 0) throw 5;
      return {};
    };
    if (meeting.rank == 0) {
      EXPECT_THROW(work_and_meet(meeting, fail), int);
    } else {
      EXPECT_THROW(work_and_meet(meeting, fail), FileError);
    }
  });
}

TEST(RankMeeting, MessagesNeedNotBeText) {
  const Outcomes outcomes = run_meeting(2, [](const RankMeeting& meeting) {
    work_and_meet(meeting, [&]() -> Json {
      if (meeting.rank == 0) throw FileError("name \xff\xfe");
      return {};
    });
  });
  EXPECT_THAT(outcomes[1], HasSubstr("another rank failed (found name"));
}

TEST(RankMeeting, OneRankAloneNeedsNobody) {
  EXPECT_EQ(work_and_meet({}, [] { return Json(7); }), std::vector<Json>{7});
  EXPECT_THROW(work_and_meet({}, []() -> Json { throw ConfigError("no"); }), ConfigError);
}

TEST(RankMeeting, FailedMeetingIsPassedOn) {
  RankMeeting meeting;
  meeting.gather = [](const std::string&) -> std::vector<std::string> {
    throw CommError("peer is gone");
  };
  EXPECT_THROW(work_and_meet(meeting, [] { return Json(); }), CommError);
}

}  // namespace
}  // namespace farskip
