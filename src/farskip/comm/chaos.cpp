#include "farskip/comm/chaos.h"

#include "farskip/base/format.h"
#include "farskip/base/random.h"
#include "farskip/comm/hook.h"

namespace farskip {
namespace {

// The disturbances of one rank.
class Chaos final : public Hook {
 public:
  Chaos(int rank, uint64_t seed, const ChaosOptions& options)
      : rank_(rank), seed_(seed), options_(options) {}

  Clock::duration entry_delay(int64_t index, Tag tag) override {
    if (hits(options_.fail, index)) {
      throw CommError("injected failure",
                      {.where = "collective " + std::to_string(index) + ", tag " +
                                std::to_string(tag) + ", rank " + std::to_string(rank_)});
    }
    if (hits(options_.stall, index)) return Clock::duration::max();
    return delay(index, 0);
  }
  Clock::duration visibility_delay(int64_t index) override { return delay(index, 1); }
  std::string describe() const override {
    return "chaos(seed " + std::to_string(seed_) + ", delays up to " +
           format_duration(options_.max_delay_seconds) + ")";
  }

 private:
  bool hits(const std::optional<ChaosTarget>& target, int64_t index) const {
    return target && target->rank == rank_ && target->collective == index;
  }

  Clock::duration delay(int64_t index, uint64_t purpose) const {
    Random of_rank(seed_ ^ (static_cast<uint64_t>(rank_) << 32));
    Random random(of_rank() + 2 * static_cast<uint64_t>(index) + purpose);
    return std::chrono::round<Clock::duration>(
        std::chrono::duration<double>(random.uniform(0, options_.max_delay_seconds)));
  }

  const int rank_;
  const uint64_t seed_;
  const ChaosOptions options_;
};

void check_target(const std::optional<ChaosTarget>& target, int ranks) {
  if (!target) return;
  if (target->rank < 0 || target->rank >= ranks || target->collective < 0) {
    throw UsageError("chaos has no such target",
                     {.expected = "a rank below " + std::to_string(ranks) + ", a collective from 0",
                      .found = "rank " + std::to_string(target->rank) + ", collective " +
                               std::to_string(target->collective)});
  }
}

}  // namespace

std::vector<std::unique_ptr<Group>> make_chaos(std::vector<std::unique_ptr<Group>> inner,
                                               uint64_t seed, ChaosOptions options) {
  if (!(options.max_delay_seconds >= 0) || options.max_delay_seconds > 60) {
    throw UsageError("wrong chaos delay", {.expected = "0 to 60 seconds",
                                           .found = std::to_string(options.max_delay_seconds)});
  }
  const std::vector<HookableGroup*> groups = hookable(inner, "chaos");
  check_target(options.fail, groups.front()->size());
  check_target(options.stall, groups.front()->size());
  for (HookableGroup* group : groups) {
    group->add_hook(std::make_shared<Chaos>(group->rank(), seed, options));
  }
  return inner;
}

}  // namespace farskip
