#include "farskip/comm/part_bootstrap.h"

#include <algorithm>
#include <string>
#include <utility>

namespace farskip {
namespace {

class PartBootstrap final : public Bootstrap {
 public:
  PartBootstrap(std::shared_ptr<Bootstrap> whole, std::vector<int> members)
      : whole_(std::move(whole)), members_(std::move(members)) {}

  int rank() const override { return place_of(whole_->rank()); }
  int size() const override { return static_cast<int>(members_.size()); }

  std::string broadcast(std::string_view bytes) override {
    return all_gather(rank() == 0 ? bytes : std::string_view()).front();
  }
  std::vector<std::string> all_gather(std::string_view bytes) override {
    std::vector<std::string> all = whole_->all_gather(bytes), own;
    for (int member : members_) own.push_back(std::move(all[static_cast<size_t>(member)]));
    return own;
  }
  void barrier() override { whole_->barrier(); }

  void fail(const std::string& reason) noexcept override { whole_->fail(reason); }
  std::optional<std::string> failure() const override { return whole_->failure(); }
  std::vector<int> left() const override {
    std::vector<int> left;
    for (int rank : whole_->left()) {
      const int place = place_of(rank);
      if (place < size()) left.push_back(place);
    }
    return left;
  }

 private:
  // size() for a rank of another part.
  int place_of(int rank) const {
    return static_cast<int>(std::ranges::find(members_, rank) - members_.begin());
  }

  const std::shared_ptr<Bootstrap> whole_;
  const std::vector<int> members_;  // ranks of the whole
};

}  // namespace

std::shared_ptr<Bootstrap> part_of_job(std::shared_ptr<Bootstrap> whole, int part) {
  const std::vector<std::string> parts = whole->all_gather(std::to_string(part));
  std::vector<int> members;
  for (size_t rank = 0; rank < parts.size(); ++rank) {
    if (parts[rank] == std::to_string(part)) members.push_back(static_cast<int>(rank));
  }
  return std::make_shared<PartBootstrap>(std::move(whole), std::move(members));
}

}  // namespace farskip
