#pragma once

#include <functional>
#include <string>
#include <vector>

#include "farskip/base/json.h"

namespace farskip {

// How the ranks of a run come together: whoever calls gather(own) gets every rank's text, in the
// order of ranks, once all have called it, and it throws when that can not happen any more. With
// ranks as threads or processes it is gather_texts of comm. The default is a run of one rank.
struct RankMeeting {
  int rank = 0, ranks = 1;
  std::function<std::vector<std::string>(const std::string& own)> gather =
      [](const std::string& own) { return std::vector<std::string>{own}; };
};

// Every rank does its part of the work, then they meet and each gets what all returned, in the
// order of ranks. If the work of any throws, it throws on every rank: there what was thrown, on the
// others FileError with the rank and its message. Throws what gather throws.
std::vector<Json> work_and_meet(const RankMeeting& meeting, const std::function<Json()>& work);

}  // namespace farskip
