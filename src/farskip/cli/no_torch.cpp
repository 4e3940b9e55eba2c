#include <CLI/CLI.hpp>

#include "farskip/base/error.h"
#include "farskip/cli/commands.h"
#include "farskip/version.h"

namespace farskip {
namespace {

void add_unavailable(CLI::App& app, const char* name, const char* about) {
  CLI::App* command = app.add_subcommand(name, about);
  command->allow_extras();
  command->callback([name] {
    throw UnsupportedError("this build of farskip is without libtorch",
                           {.where = name, .hint = "configure with -DFARSKIP_TORCH=ON"});
  });
}

}  // namespace

std::string version_text() {
  return "farskip " + std::string(version) + "\ntorch: not in this build";
}

void add_logits_command(CLI::App& app) {
  add_unavailable(app, "logits", "Logits of a checkpoint (needs libtorch)");
}
void add_bench_command(CLI::App& app) {
  add_unavailable(app, "bench", "Measured overlap (needs libtorch)");
}
void add_eval_command(CLI::App& app) {
  add_unavailable(app, "eval", "Accuracy and loss of a checkpoint (needs libtorch)");
}
void add_train_command(CLI::App& app) {
  add_unavailable(app, "train", "Train a model (needs libtorch)");
}
void add_export_command(CLI::App& app) {
  add_unavailable(app, "export", "A training run as a Hugging Face folder (needs libtorch)");
}

}  // namespace farskip
