#include "farskip/eval/task.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "farskip/base/error.h"
#include "farskip/base/files.h"
#include "farskip/base/json.h"
#include "farskip/io/utf8.h"

namespace farskip {
namespace {

std::string_view without_space_at_end(std::string_view text) {
  while (!text.empty() && is_white_space(last_code_point(text).value)) {
    text.remove_suffix(last_code_point(text).bytes);
  }
  return text;
}

void require_content(const std::string& text, const std::string& field, const std::string& where) {
  if (!text.empty()) return;
  throw ConfigError("wrong question", {.where = where + ": " + field, .expected = "text"});
}

Question question_from(const Json& json, const std::string& where, bool continuations_differ) {
  Question question;
  const char* list = continuations_differ ? "choices" : "context_options";
  const char* common = continuations_differ ? "query" : "continuation";
  const auto shared = require<std::string>(json, common, where);
  require_content(shared, common, where);
  for (const std::string& text : require<std::vector<std::string>>(json, list, where)) {
    require_content(text, list, where);
    if (continuations_differ) {
      const std::string context = std::string(without_space_at_end(shared)) + "\nAnswer:";
      question.choices.push_back({context, " " + text, text.size()});
    } else {
      question.choices.push_back({text, " " + shared, shared.size()});
    }
  }
  const auto gold = require<uint64_t>(json, "gold", where);
  if (question.choices.size() < 2 || gold >= question.choices.size()) {
    throw ConfigError("wrong question", {.where = where,
                                         .expected = "two choices at least, and gold one of them",
                                         .found = std::to_string(question.choices.size()) +
                                                  " and gold " + std::to_string(gold)});
  }
  question.gold = gold;
  return question;
}

}  // namespace

double Task::chance() const {
  double sum = 0;
  for (const Question& question : questions) {
    sum += 1.0 / static_cast<double>(question.choices.size());
  }
  return questions.empty() ? 0 : sum / static_cast<double>(questions.size());
}

Task read_task(const std::filesystem::path& folder, const std::string& name) {
  const auto path = folder / (name + ".jsonl");
  const std::string content = read_file(path);
  Task task{.name = name};
  std::string_view rest = content;
  for (int line = 1; !rest.empty(); ++line) {
    const std::string_view text = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), text.size() + 1));
    const std::string where = path.string() + ": line " + std::to_string(line);
    const Json json = parse_json(text, where);
    const bool continuations_differ = !json.is_object() || !json.contains("context_options");
    if (task.questions.empty()) task.continuations_differ = continuations_differ;
    task.questions.push_back(question_from(json, where, task.continuations_differ));
  }
  if (task.questions.empty()) {
    throw FileError("task has no questions", {.where = path.string(), .expected = "JSON lines"});
  }
  return task;
}

}  // namespace farskip
