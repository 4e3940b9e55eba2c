#pragma once

#include <optional>
#include <span>
#include <string>

#include "farskip/comm/group.h"

namespace farskip {

// Checks that every rank has the same `text` for the field `name` (a version, a configuration's
// fingerprint). Collective: every rank calls it, with tags of the others' calls; blocks. Throws
// CommError on every rank, naming the field, two ranks and their values, and what the group throws.
void require_agreement(Group& group, Tag tag, const std::string& name, const std::string& text);

// The first difference from rank 0's text, if any; texts[r] is of rank r.
std::optional<CommError> find_difference(const std::string& name,
                                         std::span<const std::string> texts);

}  // namespace farskip
