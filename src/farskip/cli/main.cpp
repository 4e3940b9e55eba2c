#include <CLI/CLI.hpp>
#include <exception>

#include "farskip/cli/commands.h"

namespace {

constexpr int misused = 2;

int run(int argc, char** argv) {
  CLI::App app{
      "farskip: Mixture-of-Experts models without the waiting.\n"
      "Sees what overlap would buy (plan), shows it happen (bench), runs a checkpoint\n"
      "blocking or overlapped with identical bits (logits), measures accuracy and loss\n"
      "(eval), makes token files (tokenize), trains models (train) and draws how that\n"
      "went (plot)."};
  app.set_version_flag("--version", farskip::version_text);
  app.require_subcommand(1);
  app.get_formatter()->column_width(38);
  farskip::add_inspect_command(app);
  farskip::add_plan_command(app);
  farskip::add_bench_command(app);
  farskip::add_logits_command(app);
  farskip::add_train_command(app);
  farskip::add_export_command(app);
  farskip::add_plot_command(app);
  farskip::add_tokenize_command(app);
  farskip::add_eval_command(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : misused;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const farskip::Reported& reported) {
    return reported.status;
  } catch (const std::exception& error) {
    return farskip::report(error);
  }
}
