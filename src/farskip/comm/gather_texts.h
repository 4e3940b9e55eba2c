#pragma once

#include <string>
#include <vector>

#include "farskip/comm/group.h"

namespace farskip {

// Every rank's `own` text, in rank order, on every rank. Collective: every rank calls it, with tags
// of the others' calls; blocks. Throws what the group throws.
std::vector<std::string> gather_texts(Group& group, Tag tag, const std::string& own);

}  // namespace farskip
