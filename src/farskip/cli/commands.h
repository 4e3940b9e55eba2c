#pragma once

namespace CLI {
class App;
}

namespace farskip {

// Each adds one subcommand with its options to the application; its callback does the work and
// throws farskip::Error. Results go to stdout, everything else to stderr.
void add_inspect_command(CLI::App& app);
void add_plan_command(CLI::App& app);
void add_logits_command(CLI::App& app);
void add_bench_command(CLI::App& app);

}  // namespace farskip
