#include "farskip/base/error.h"

namespace farskip {
namespace {

std::string describe(const std::string& summary, const Problem& problem) {
  std::string text = problem.where.empty() ? summary : problem.where + ": " + summary;
  std::string facts;
  if (!problem.expected.empty()) facts += "expected " + problem.expected;
  if (!problem.found.empty()) facts += (facts.empty() ? "found " : ", found ") + problem.found;
  if (!facts.empty()) text += " (" + facts + ")";
  if (!problem.hint.empty()) text += "; " + problem.hint;
  return text;
}

}  // namespace

Error::Error(const std::string& summary, Problem problem)
    : std::runtime_error(describe(summary, problem)), problem_(std::move(problem)) {}

}  // namespace farskip
