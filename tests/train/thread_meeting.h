#pragma once

#include <barrier>
#include <exception>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "farskip/train/rank_meeting.h"

namespace farskip {

// What each rank's function threw, as text; "" if nothing.
using Outcomes = std::vector<std::string>;

// Runs function(meeting) for each rank on a thread of its own, where all meet.
inline Outcomes run_meeting(int ranks, const std::function<void(const RankMeeting&)>& function) {
  std::barrier barrier(ranks);
  std::vector<std::string> texts(static_cast<size_t>(ranks));
  Outcomes outcomes(static_cast<size_t>(ranks));
  const auto run = [&](int rank) {
    RankMeeting meeting{.rank = rank, .ranks = ranks};
    meeting.gather = [&, rank](const std::string& own) {
      texts[static_cast<size_t>(rank)] = own;
      barrier.arrive_and_wait();
      const std::vector<std::string> all = texts;
      barrier.arrive_and_wait();
      return all;
    };
    try {
      function(meeting);
    } catch (const std::exception& error) {
      outcomes[static_cast<size_t>(rank)] = error.what();
    }
  };
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < ranks; ++rank) threads.emplace_back(run, rank);
  threads.clear();
  return outcomes;
}

}  // namespace farskip
