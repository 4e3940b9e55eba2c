#pragma once

#include <exception>
#include <optional>
#include <string>

namespace CLI {
class App;
}

namespace farskip {

// Thrown by a command whose error has been printed; the process ends with `status`.
struct Reported {
  int status = 1;
};

// Prints "farskip: error" to stderr; with a rank, "farskip: rank 3: error". Returns the status that
// the process is to end with: 2 for wrong usage, else 1.
int report(const std::exception& error, std::optional<int> rank = {});

// What this build is made of, one line each: version, libraries, transports.
std::string version_text();

// Each adds one subcommand with its options to the application; its callback does the work and
// throws farskip::Error. Results go to stdout, everything else to stderr.
void add_inspect_command(CLI::App& app);
void add_plan_command(CLI::App& app);
void add_logits_command(CLI::App& app);
void add_bench_command(CLI::App& app);
void add_train_command(CLI::App& app);
void add_export_command(CLI::App& app);
void add_plot_command(CLI::App& app);
void add_tokenize_command(CLI::App& app);
void add_eval_command(CLI::App& app);

}  // namespace farskip
