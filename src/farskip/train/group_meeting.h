#pragma once

#include "farskip/comm/group.h"
#include "farskip/train/rank_meeting.h"

namespace farskip {

// The ranks of a group meet over its collectives, with `tag`. The group must outlive the meeting.
// Its deadline bounds how long one rank may write or read while the others wait.
RankMeeting meeting_of(Group& group, Tag tag);

}  // namespace farskip
