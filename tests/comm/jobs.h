#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "farskip/comm/bootstrap.h"

namespace farskip::testing {

// Joins `size` ranks, each on a thread of its own, and returns their bootstraps in rank order.
std::vector<std::shared_ptr<Bootstrap>> join_job(int size, double deadline_seconds = 20);

// Runs function(r) for each of `size` ranks on a thread of its own; what() of the CommErrors that
// they threw, in rank order, empty where there was none.
std::vector<std::string> errors_of_ranks(int size, const std::function<void(int rank)>& function);

// A loopback port that nothing listens on.
int free_port();

}  // namespace farskip::testing
