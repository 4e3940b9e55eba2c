#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "farskip/base/table.h"
#include "farskip/cli/commands.h"
#include "farskip/model/builtin.h"
#include "farskip/model/describe.h"

namespace farskip {
namespace {

struct InspectOptions {
  std::string model;
  int expert_parallel = 1, tensor_parallel = 1;
  double bytes_per_element = 2;
  bool json = false;
};

void print_rows(const std::vector<DescriptionRow>& rows) {
  Table table({{.name = "", .unit = "", .align = Align::left},
               {.name = "", .unit = "", .align = Align::left}});
  for (const DescriptionRow& row : rows) table.add_row({row.label, row.value});
  // The two header columns are nameless: only the rows are of interest.
  const std::string text = table.to_string();
  const size_t body = text.find('\n', text.find('\n') + 1) + 1;
  std::cout << text.substr(body);
}

void run(const InspectOptions& options) {
  const ModelConfig model = load_model(options.model);
  const auto about = describe_model(model);
  const auto contributions = describe_contributions(model);
  const auto weights = describe_weights(model, options.expert_parallel, options.tensor_parallel,
                                        options.bytes_per_element);
  if (options.json) {
    const ParameterCount count = count_parameters(model);
    nlohmann::ordered_json json = {{"name", model.name},
                                   {"family", model.family},
                                   {"layers", model.layer_count()},
                                   {"moe_layers", model.moe_layer_count()},
                                   {"hidden", model.hidden},
                                   {"vocabulary", model.vocabulary},
                                   {"experts", model.router.experts},
                                   {"top_k", model.router.top_k},
                                   {"parameters_total", count.total},
                                   {"parameters_active", count.active},
                                   {"parameters_embedding", count.embedding},
                                   {"executable", model.executable()}};
    for (const DescriptionRow& row : weights) json["per_rank"][row.label] = row.value;
    std::cout << json.dump(2) << '\n';
    return;
  }
  std::cout << model.name << "\n\n";
  print_rows(about);
  std::cout << "\nresidual stream\n";
  print_rows(contributions);
  std::cout << "\nweights on the fullest rank: expert parallel " << options.expert_parallel
            << ", tensor parallel " << options.tensor_parallel << "\n";
  print_rows(weights);
}

}  // namespace

void add_inspect_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("inspect", "What a model is, and what it weighs on a rank");
  auto options = std::make_shared<InspectOptions>();
  command
      ->add_option("model", options->model,
                   "checkpoint folder, config.json, or the name of a shipped configuration")
      ->required();
  command
      ->add_option("--expert-parallel", options->expert_parallel,
                   "ranks the experts are split over")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  command
      ->add_option("--tensor-parallel", options->tensor_parallel,
                   "ranks attention, shared experts and dense MLPs are split over")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  command
      ->add_option("--bytes-per-element", options->bytes_per_element,
                   "bytes of one weight: 4 fp32, 2 bf16, 1 fp8")
      ->capture_default_str()
      ->check(CLI::Range(0.25, 8.0));
  command->add_flag("--json", options->json, "print JSON");
  command->callback([options] { run(*options); });
}

}  // namespace farskip
