#pragma once

#include <memory>

#include "farskip/comm/bootstrap.h"

namespace farskip {

// A part of a job as a job of its own: the ranks that say the same number, in their order. Ranks of
// all parts make theirs together, and every exchange of one part goes together with the same one of
// the others. What fails a part fails the job. Collective over the whole job; throws as Bootstrap.
std::shared_ptr<Bootstrap> part_of_job(std::shared_ptr<Bootstrap> whole, int part);

}  // namespace farskip
