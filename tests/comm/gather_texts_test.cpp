#include "farskip/comm/gather_texts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "farskip/comm/local.h"
#include "farskip/comm/ranks.h"

namespace farskip {
namespace {

using testing::ElementsAre;

TEST(GatherTexts, EveryRankGetsAllInOrder) {
  run_ranks(make_local_groups(3), [](Group& group) {
    const std::string own = group.rank() == 1 ? "" : std::string(group.rank() + 1, 'x');
    EXPECT_THAT(gather_texts(group, 1, own), ElementsAre("x", "", "xxx"));
    EXPECT_THAT(gather_texts(group, 2, ""), ElementsAre("", "", ""));
    EXPECT_THAT(gather_texts(group, 3, std::string("\0\xff", 2)),
                testing::Each(std::string("\0\xff", 2)));
  });
}

TEST(GatherTexts, OneRankGetsItsOwn) {
  run_ranks(make_local_groups(1), [](Group& group) {
    EXPECT_THAT(gather_texts(group, 1, "alone"), ElementsAre("alone"));
  });
}

}  // namespace
}  // namespace farskip
