#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace farskip {

// One answer to a question: judged by how likely its continuation is behind its context.
struct Choice {
  std::string context, continuation;
  size_t bytes = 0;  // of the answer's own text, which acc_norm divides by
};

struct Question {
  std::vector<Choice> choices;  // two at least
  size_t gold = 0;              // the right one
};

// A multiple-choice task.
struct Task {
  std::string name;
  std::vector<Question> questions;
  // Whether the choices differ in their continuations; else in their contexts, as winogrande's.
  bool continuations_differ = true;

  double chance() const;  // accuracy of a guess
};

// Reads NAME.jsonl of a folder, one question a line, in either form:
//   {"query": TEXT, "choices": [TEXT, ...], "gold": INDEX}
//     context: the query without white space at its end, and "\nAnswer:"; continuation: a space and
//     the choice
//   {"context_options": [TEXT, ...], "continuation": TEXT, "gold": INDEX}
//     context: each option; continuation: a space and the text
// which are the prompts of lm-evaluation-harness (arc, piqa, winogrande). Throws FileError for a
// file that is missing, empty or no JSON, ConfigError that names the line for a field that is
// missing or wrong.
Task read_task(const std::filesystem::path& folder, const std::string& name);

}  // namespace farskip
