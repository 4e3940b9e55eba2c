#include "farskip/runtime/same_work.h"

#include <charconv>
#include <string>

#include "farskip/base/hash.h"
#include "farskip/comm/agreement.h"
#include "farskip/model/fingerprint.h"

namespace farskip {
namespace {

constexpr Tag kTag = -10;

std::string hex(uint64_t value) {
  char text[17];
  return std::string(text, std::to_chars(text, text + sizeof text, value, 16).ptr);
}

std::string text_of(const ModelConfig& model) {
  return model.family + " of " + std::to_string(model.layer_count()) + " layers, " +
         std::to_string(model.router.experts) + " experts, fingerprint " + hex(fingerprint(model));
}

std::string text_of(const Schedule& schedule) {
  Hasher order;
  for (const Step& step : schedule.steps) order.add(step.op);
  return schedule.name + ", order " + hex(order.value());
}

std::string text_of(const TokenBatch& tokens) {
  Hasher hasher;
  for (const int64_t length : tokens.lengths) hasher.add(length);
  for (const int64_t id : tokens.ids) hasher.add(id);
  return std::to_string(tokens.batch()) + " sequences, " + std::to_string(tokens.ids.size()) +
         " tokens, fingerprint " + hex(hasher.value());
}

}  // namespace

void require_same_work(Group& group, const ModelConfig& model,
                       std::span<const PlannedStep* const> steps, const TokenBatch& tokens,
                       size_t rounds) {
  const auto require = [&](const char* name, const std::string& text) {
    require_agreement(group, kTag, name, text);
  };
  require("model", text_of(model));
  require("steps", std::to_string(steps.size()) + " of " + std::to_string(rounds) + " rounds");
  for (const PlannedStep* step : steps) {
    require("connectivity and rewrites", step->graph.description());
    require("graph", hex(step->graph.hash()));
    require("schedule", text_of(step->schedule));
  }
  require("batch", text_of(tokens));
}

}  // namespace farskip
