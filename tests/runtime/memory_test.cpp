#include "farskip/schedule/memory.h"

#include <gtest/gtest.h>

#include "fixture.h"

namespace farskip::testing {
namespace {

// The schedule says before the run how much a step will hold, at the sizes it expects; even routing
// gives it about those.
TEST(Memory, PeakOfAStepIsAsPredicted) {
  for (const char* family : {"deepseek_v3", "olmoe", "mixtral"}) {
    const Fixture fixture(family);
    const TokenBatch tokens = fixture.prefixes({48, 48, 48, 48});
    for (int ranks : {1, 2, 4}) {
      Session session = fixture.session(ranks);
      for (const char* schedule : {"blocking", "overlapped"}) {
        for (int chunks : {1, 2}) {
          const StepForm form{.schedule = schedule,
                              .expert_chunks = chunks,
                              .pieces = chunks,
                              .routing = RoutingMode::balanced};
          const PlannedStep step = fixture.plan("farskip", ranks, tokens, form);
          const double predicted = peak_activation_bytes(step.graph, step.schedule);
          for (const StepResult& rank : session.run(step, tokens).ranks) {
            EXPECT_NEAR(static_cast<double>(rank.peak_activation_bytes) / predicted, 1, 0.1)
                << family << ", " << ranks << " ranks, " << schedule << ", chunks " << chunks;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace farskip::testing
