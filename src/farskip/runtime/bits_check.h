#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "farskip/runtime/session.h"

namespace farskip {

// Whether runs that must have the same bits had them.
struct BitsVerdict {
  bool equal = true;
  int compared = 0;  // runs that had another one to be equal to
  std::string first_difference;
  // Where bits of gradients differ: the most that the norm of one did, relative.
  double gradient_noise = 0;
};

// Compares the results of runs: logits, or gradients where a step made some, which it leaves on
// their device. Thread rule: one thread.
class BitsCheck {
 public:
  // The result must have the bits of the first one of its family. `name` of the run, for reports.
  void add(const std::string& family, const std::string& name, const ForwardResult& result);

  // The same on every process of the session, each of which has added the same runs, with what its
  // own ranks made. Collective. Throws CommError.
  BitsVerdict conclude(Session& session) const;

 private:
  struct Footprint {
    at::Tensor bits;   // of gradients, or the logits
    at::Tensor norms;  // of gradients, or undefined
  };
  std::map<std::string, Footprint> expected_;  // by family
  std::vector<std::string> compared_;          // names
  std::vector<size_t> differences_;            // those of compared_ that differ here
  double gradient_noise_ = 0;
};

}  // namespace farskip
