#include "farskip/comm/hook.h"

namespace farskip {

std::vector<HookableGroup*> hookable(const std::vector<std::unique_ptr<Group>>& groups,
                                     const std::string& what) {
  if (groups.empty()) throw UsageError(what + " needs at least one group");
  std::vector<HookableGroup*> result;
  for (const auto& group : groups) {
    if (!group) throw UsageError(what + " was given a null group");
    auto* const target = dynamic_cast<HookableGroup*>(group.get());
    if (!target) {
      throw UnsupportedError("this backend's timing can not be shaped",
                             {.where = what,
                              .expected = "a backend with hooks, such as local",
                              .found = group->describe()});
    }
    result.push_back(target);
  }
  return result;
}

}  // namespace farskip
