#include "farskip/runtime/arrivals.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <map>

#include "fixture.h"

namespace farskip::testing {
namespace {

std::vector<ValueId> dispatched(const Graph& graph) {
  std::vector<ValueId> values;
  for (const Op& op : graph.ops()) {
    if (op.kind == OpKind::dispatch) values.push_back(op.outputs.at(0));
  }
  return values;
}

// Whole, where they come in chunks.
std::vector<ValueId> combined(const Graph& graph) {
  std::vector<ValueId> values;
  for (const Op& op : graph.ops()) {
    if (op.kind == OpKind::unpermute) values.push_back(op.inputs.at(0));
  }
  return values;
}

// The op that brings the first of it.
OpId first_producer(const Graph& graph, const std::vector<Step>& steps, ValueId value) {
  for (const Step& step : steps) {
    for (ValueId output : graph.op(step.op).outputs) {
      if (output == value || graph.value(output).part_of == value) return step.op;
    }
  }
  return none;
}

// Whether the lanes alone make sure that `next` comes when `value` has been read.
bool is_read_before(const Graph& graph, const std::vector<Step>& steps, ValueId value,
                    ValueId next) {
  std::map<OpId, int> place;
  int behind = -1;
  for (const Step& step : steps) {
    if (step.lane == Lane::compute) {
      place[step.op] = static_cast<int>(place.size());
      continue;
    }
    for (OpId op : step.wait_for) behind = std::max(behind, place.at(op));
    if (step.op == first_producer(graph, steps, next)) break;
  }
  return std::ranges::all_of(graph.consumers(value), [&](OpId reader) {
    return place.contains(reader) && place.at(reader) <= behind;
  });
}

TEST(Arrivals, ShareMemoryOnlyOnceTheyHaveBeenRead) {
  const Fixture fixture("deepseek_v3");
  for (const char* schedule : {"blocking", "released", "overlapped"}) {
    for (const bool two_batch : {false, true}) {
      for (const int chunks : {1, 3}) {
        SCOPED_TRACE(std::string(schedule) + ", " + std::to_string(chunks));
        const PlannedStep step =
            fixture.plan("farskip", 2, fixture.golden_tokens(),
                         {.schedule = schedule, .two_batch = two_batch, .expert_chunks = chunks});
        std::vector<ValueId> values = dispatched(step.graph);
        std::ranges::copy(combined(step.graph), std::back_inserter(values));
        const std::vector<Arrival> arrivals =
            plan_arrivals(step.graph, step.schedule.steps, values);
        ASSERT_EQ(arrivals.size(), values.size());
        std::map<int, ValueId> last;  // by slot
        for (const Arrival& arrival : arrivals) {
          const auto before = last.find(arrival.slot);
          if (before != last.end()) {
            EXPECT_TRUE(
                is_read_before(step.graph, step.schedule.steps, before->second, arrival.value));
          }
          last[arrival.slot] = arrival.value;
        }
        EXPECT_LT(last.size(), values.size());
      }
    }
  }
}

TEST(Arrivals, BlockingLayersUseOneSlotAgainAndAgain) {
  const Fixture fixture("deepseek_v3");
  const PlannedStep step =
      fixture.plan("standard", 2, fixture.golden_tokens(), {.schedule = "blocking"});
  for (const Arrival& arrival :
       plan_arrivals(step.graph, step.schedule.steps, dispatched(step.graph))) {
    EXPECT_EQ(arrival.slot, 0);
  }
}

// Counts are read by collectives too, whose end the compute lane does not know.
TEST(Arrivals, WhatCollectivesReadHasASlotOfItsOwn) {
  const Fixture fixture("deepseek_v3");
  const PlannedStep step =
      fixture.plan("farskip", 2, fixture.golden_tokens(), {.schedule = "overlapped"});
  std::vector<ValueId> values = dispatched(step.graph);
  size_t counts = 0;
  for (const Op& op : step.graph.ops()) {
    if (op.kind != OpKind::counts) continue;
    values.push_back(op.outputs.at(0));
    ++counts;
  }
  std::map<int, int> uses;
  std::map<ValueId, int> slot_of;
  for (const Arrival& arrival : plan_arrivals(step.graph, step.schedule.steps, values)) {
    ++uses[arrival.slot];
    slot_of[arrival.value] = arrival.slot;
  }
  ASSERT_GT(counts, 1u);
  for (const Op& op : step.graph.ops()) {
    if (op.kind != OpKind::counts) continue;
    EXPECT_EQ(uses[slot_of[op.outputs.at(0)]], 1);
  }
}

}  // namespace
}  // namespace farskip::testing
