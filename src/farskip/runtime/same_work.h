#pragma once

#include <span>

#include "farskip/comm/group.h"
#include "farskip/io/tokens.h"
#include "farskip/model/config.h"
#include "farskip/runtime/step_plan.h"

namespace farskip {

// Checks that every rank of the group is about to run the same steps of the same model on the same
// batch, for ranks of several processes. Collective, blocks. Throws CommError on every rank, naming
// the first of model, connectivity and rewrites, graph, schedule, batch, number of steps and rounds
// that differs, two ranks and what each has.
void require_same_work(Group& group, const ModelConfig& model,
                       std::span<const PlannedStep* const> steps, const TokenBatch& tokens,
                       size_t rounds);

}  // namespace farskip
