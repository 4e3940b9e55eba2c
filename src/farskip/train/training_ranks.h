#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "farskip/comm/group.h"
#include "farskip/train/rank_meeting.h"

namespace farskip {

// The ranks of a run as one of them sees them: those of its pipeline stage, and the same rank of
// every stage. Numbered stage by stage. The groups must outlive it; its deadlines are theirs. What
// ranks gather is collective: all of them make the same calls, which block and throw CommError.
class TrainingRanks {
 public:
  // `between`: null where there is one stage.
  explicit TrainingRanks(Group& within, Group* between = nullptr)
      : within_(within), between_(between) {}

  Group& within() const { return within_; }
  Group* between() const { return between_; }
  int stage() const { return between_ ? between_->rank() : 0; }
  int stages() const { return between_ ? between_->size() : 1; }
  int rank() const { return stage() * within_.size() + within_.rank(); }
  int size() const { return stages() * within_.size(); }

  // Sums of as many numbers, in the order of ranks: over all, or those of this stage.
  std::vector<double> sum(const std::vector<double>& own) const;
  std::vector<double> sum_within(const std::vector<double>& own) const;
  // Integers, each of which all ranks of a stage have alike: summed over stages.
  at::Tensor sum_over_stages(const at::Tensor& own) const;
  std::vector<std::string> gather_texts(Tag tag, const std::string& own) const;
  // They meet with `tag`, each with one rank's time to write or read.
  RankMeeting meeting(Tag tag) const;

 private:
  Group& within_;
  Group* between_;
};

}  // namespace farskip
