#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/base/files.h"
#include "farskip/base/format.h"
#include "farskip/base/table.h"
#include "farskip/cli/commands.h"
#include "farskip/cli/step_options.h"
#include "farskip/eval/evaluator.h"
#include "farskip/eval/grade.h"
#include "farskip/eval/loss.h"
#include "farskip/eval/task.h"

namespace farskip {
namespace {

constexpr const char* loss_task = "loss";

struct EvalOptions {
  std::string checkpoint, tokenizer, valid, items;
  std::string data = "data/eval";
  std::vector<std::string> tasks;
  std::optional<uint64_t> limit;
  int64_t sequence_length = 512;
  RequestOptions request;
  EvaluatorOptions evaluator;
  StepOptions step;
  TransportOptions transport;
  bool json = false;
};

// What a task came to, for printing.
struct Result {
  std::string name;
  std::optional<Grade> grade;
  double chance = 0;
  std::optional<LossResult> loss;
};

bool asks_for_loss(const EvalOptions& options) {
  return std::ranges::find(options.tasks, loss_task) != options.tasks.end();
}

void check_flags(const EvalOptions& options) {
  const bool only_loss = options.tasks.size() == 1 && asks_for_loss(options);
  const auto missing = [](const char* flag, const std::string& task) {
    throw UsageError("is missing", {.where = flag, .hint = "task " + task + " needs it"});
  };
  if (options.transport.name == "loopback") {
    throw UsageError("loopback's results mean nothing", {.where = "--transport"});
  }
  if (asks_for_loss(options) && options.valid.empty()) missing("--valid", loss_task);
  if (!only_loss && options.tokenizer.empty()) missing("--tokenizer", options.tasks.front());
}

std::vector<Task> read_tasks(const EvalOptions& options) {
  std::vector<Task> tasks;
  for (const std::string& name : options.tasks) {
    if (name == loss_task) continue;
    Task task = read_task(options.data, name);
    if (options.limit && *options.limit < task.questions.size()) {
      task.questions.resize(*options.limit);
    }
    tasks.push_back(std::move(task));
  }
  return tasks;
}

std::vector<Request> requests_of(const Task& task, const Tokenizer& tokenizer,
                                 const RequestOptions& options) {
  std::vector<Request> requests;
  for (const Question& question : task.questions) {
    for (const Choice& choice : question.choices) {
      requests.push_back(encode_request(tokenizer, choice.context, choice.continuation, options));
    }
  }
  return requests;
}

Result run_task(const Task& task, const Tokenizer& tokenizer, Evaluator& evaluator,
                const RequestOptions& options) {
  const std::vector<Request> requests = requests_of(task, tokenizer, options);
  Progress progress(task.name, static_cast<int64_t>(requests.size()));
  return {.name = task.name,
          .grade = grade(task, evaluator.score(requests, &progress)),
          .chance = task.chance()};
}

Result run_loss(const EvalOptions& options, const TokenFile& file, Evaluator& evaluator) {
  Progress progress(loss_task, 0);
  return {.name = loss_task,
          .loss = evaluate_loss(
              evaluator, file,
              {.sequence_length = options.sequence_length, .windows = options.limit}, &progress)};
}

nlohmann::ordered_json json_of(const Estimate& estimate) {
  nlohmann::ordered_json json = {{"value", estimate.mean}, {"standard_error", nullptr}};
  if (estimate.standard_error) json["standard_error"] = *estimate.standard_error;
  return json;
}

nlohmann::ordered_json json_of(const Result& result) {
  nlohmann::ordered_json json = {{"task", result.name}};
  if (result.grade) {
    json["questions"] = result.grade->answers.size();
    json["chance"] = result.chance;
    json["acc"] = json_of(result.grade->accuracy);
    if (result.grade->normalized) json["acc_norm"] = json_of(*result.grade->normalized);
  }
  if (result.loss) {
    json["tokens"] = result.loss->tokens;
    json["windows"] = result.loss->windows;
    json["loss_nats"] = json_of(Estimate{result.loss->loss, result.loss->standard_error});
    json["perplexity"] = result.loss->perplexity();
    if (result.loss->bits_per_byte) json["bits_per_byte"] = *result.loss->bits_per_byte;
  }
  return json;
}

std::string percent_with_error(const Estimate& estimate) {
  std::string text = format_fixed(100 * estimate.mean, 2);
  if (estimate.standard_error) text += " +- " + format_fixed(100 * *estimate.standard_error, 2);
  return text;
}

void print_table(const std::vector<Result>& results) {
  Table table({{.name = "task", .align = Align::left},
               {.name = "questions"},
               {.name = "acc", .unit = "%"},
               {.name = "acc_norm", .unit = "%"},
               {.name = "chance", .unit = "%"}});
  bool has_rows = false;
  for (const Result& result : results) {
    if (!result.grade) continue;
    const Grade& grade = *result.grade;
    table.add_row({result.name, format_integer(static_cast<int64_t>(grade.answers.size())),
                   percent_with_error(grade.accuracy),
                   grade.normalized ? percent_with_error(*grade.normalized) : "-",
                   format_fixed(100 * result.chance, 1)});
    has_rows = true;
  }
  if (has_rows) std::cout << table.to_string();
}

void print_loss(const LossResult& loss) {
  std::cout << "loss " << format_fixed(loss.loss, 4);
  if (loss.standard_error) std::cout << " +- " << format_fixed(*loss.standard_error, 4);
  std::cout << " nats a token over " << format_integer(static_cast<int64_t>(loss.tokens))
            << " tokens; perplexity " << format_fixed(loss.perplexity(), 2);
  if (loss.bits_per_byte) {
    std::cout << "; " << format_fixed(*loss.bits_per_byte, 4) << " bits a byte";
  }
  std::cout << '\n';
}

void print(const EvalOptions& options, const ModelConfig& model, const Connectivity& connectivity,
           int ranks, const std::vector<Result>& results) {
  if (options.json) {
    nlohmann::ordered_json json = {{"obtained", "measured"},
                                   {"model", model.name},
                                   {"connectivity", connectivity.name()},
                                   {"ranks", ranks},
                                   {"dtype", options.step.dtype},
                                   {"results", nlohmann::ordered_json::array()}};
    for (const Result& result : results) json["results"].push_back(json_of(result));
    std::cout << json.dump(2) << '\n';
    return;
  }
  std::cout << "measured: " << model.name << ", " << connectivity.name() << ", "
            << options.step.dtype << ", " << ranks << (ranks == 1 ? " rank\n" : " ranks\n");
  print_table(results);
  for (const Result& result : results) {
    if (result.loss) print_loss(*result.loss);
  }
}

// One line a question, whole or not at all.
void write_items(const std::string& path, const std::vector<Task>& tasks,
                 const std::vector<Result>& results) {
  write_file_atomically(path, [&](OutputFile& file) {
    for (const Task& task : tasks) {
      const auto result = std::ranges::find(results, task.name, &Result::name);
      for (size_t i = 0; i < task.questions.size(); ++i) {
        const Answer& answer = result->grade->answers[i];
        nlohmann::ordered_json line = {{"task", task.name},
                                       {"question", i},
                                       {"gold", task.questions[i].gold},
                                       {"chosen", answer.chosen}};
        if (task.continuations_differ) line["chosen_normalized"] = answer.chosen_normalized;
        line["log_probabilities"] = answer.log_probabilities;
        file.write(line.dump() + "\n");
      }
    }
  });
}

void run(const EvalOptions& options, Ranks& ranks) {
  const Checkpoint checkpoint(options.checkpoint);
  const ModelConfig& model = checkpoint.config();
  require_executable(model);
  const std::vector<Task> tasks = read_tasks(options);
  std::optional<Tokenizer> tokenizer;
  if (!tasks.empty()) tokenizer.emplace(std::filesystem::path(options.tokenizer));
  std::optional<TokenFile> valid;
  if (asks_for_loss(options)) valid.emplace(options.valid);
  const auto lengths = typical_lengths(options.evaluator.batch_tokens, ranks.size);
  const Connectivity connectivity = choose_connectivity(options.step, checkpoint);
  PlannedStep step = plan_step(model, connectivity, ranks.size, lengths, options.step);
  Session session = open_session(checkpoint, options.step, ranks);
  Evaluator evaluator(session, std::move(step), options.evaluator);
  std::vector<Result> results;
  for (const Task& task : tasks) {
    results.push_back(run_task(task, *tokenizer, evaluator, options.request));
  }
  if (valid) results.push_back(run_loss(options, *valid, evaluator));
  if (!ranks.first()) return;
  print(options, model, connectivity, ranks.size, results);
  if (!options.items.empty()) write_items(options.items, tasks, results);
}

void add_options(CLI::App& command, EvalOptions& o) {
  command.add_option("checkpoint", o.checkpoint, "Hugging Face checkpoint folder")->required();
  command
      .add_option("--tasks", o.tasks,
                  "a list: arc_easy, arc_challenge, piqa, winogrande, or any NAME.jsonl of --data; "
                  "loss: on --valid")
      ->delimiter(',')
      ->required();
  command.add_option("--tokenizer", o.tokenizer, "the model's tokenizer.json");
  command.add_option("--data", o.data, "folder with the tasks")->capture_default_str();
  command.add_option("--valid", o.valid, "token file for the loss");
  command.add_option("--limit", o.limit, "at most so many questions of a task, and windows")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 40));
  command
      .add_option("--sequence-length", o.sequence_length,
                  "loss: tokens of a window, of which each is predicted behind those before it")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  command
      .add_option("--max-length", o.request.max_length,
                  "tokens of a question at most; a longer context loses its beginning")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  command.add_flag("--special-tokens", o.request.special_tokens,
                   "put the tokenizer's special tokens (BOS) in front of questions");
  command
      .add_option("--batch-tokens", o.evaluator.batch_tokens, "tokens of a step, over all ranks")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 24));
  command.add_option("--items", o.items, "JSON lines file for the scores of every question");
  command.add_flag("--json", o.json, "print JSON");
}

}  // namespace

void add_eval_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand(
      "eval", "Accuracy on multiple-choice questions, and loss on text, of a checkpoint");
  auto options = std::make_shared<EvalOptions>();
  add_options(*command, *options);
  add_transport_options(*command, options->transport, 256);
  add_step_options(*command, options->step);
  command->callback([options] {
    check_flags(*options);
    options->evaluator.run.threads = options->transport.threads;
    at::set_num_threads(1);
    with_ranks(options->transport, [&](Ranks& ranks) { run(*options, ranks); });
  });
}

}  // namespace farskip
