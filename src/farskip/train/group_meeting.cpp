#include "farskip/train/group_meeting.h"

#include "farskip/comm/gather_texts.h"

namespace farskip {

RankMeeting meeting_of(Group& group, Tag tag) {
  return {
      .rank = group.rank(), .ranks = group.size(), .gather = [&group, tag](const std::string& own) {
        return gather_texts(group, tag, own);
      }};
}

}  // namespace farskip
