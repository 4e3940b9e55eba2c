#include "farskip/comm/throttled.h"

#include <algorithm>

#include "farskip/base/format.h"
#include "farskip/comm/hook.h"

namespace farskip {
namespace {

// The link of one rank.
class Link final : public Hook, public LinkBearer {
 public:
  Link(const LinkOptions& options, int ranks)
      : options_(options), ranks_(ranks), statistics_(options) {}

  Clock::time_point due(const Passage& passage) override {
    return passage.started + std::chrono::ceil<Clock::duration>(busy(passage));
  }
  void completed(const Passage& passage, Clock::time_point due,
                 Clock::time_point finished) override {
    statistics_.add(passage.bytes, busy(passage).count(),
                    std::chrono::duration<double>(finished - due).count());
  }
  bool needs_precise_timing() const override { return true; }
  std::string describe() const override {
    return "throttled(" + format_bytes(options_.bytes_per_second) + "/s, " +
           format_duration(options_.latency_seconds) + ")";
  }
  LinkStatistics& link_statistics() override { return statistics_; }

 private:
  std::chrono::duration<double> busy(const Passage& passage) const {
    if (ranks_ == 1) return {};
    // Longer than 30 years would overflow the clock.
    return std::chrono::duration<double>(std::min(link_seconds(options_, passage.bytes), 1e9));
  }

  const LinkOptions options_;
  const int ranks_;
  LinkStatistics statistics_;
};

}  // namespace

std::vector<std::unique_ptr<Group>> make_throttled(std::vector<std::unique_ptr<Group>> inner,
                                                   LinkOptions options) {
  check_link(options);
  for (HookableGroup* group : hookable(inner, "throttled")) {
    group->add_hook(std::make_shared<Link>(options, group->size()));
  }
  return inner;
}

}  // namespace farskip
