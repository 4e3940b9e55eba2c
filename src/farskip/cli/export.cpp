#include "farskip/train/export.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <string>

#include "farskip/base/error.h"
#include "farskip/cli/commands.h"
#include "farskip/train/checkpoint.h"

namespace farskip {
namespace {

struct ExportCommandOptions {
  std::string run, out, dtype = "bfloat16", companions;
};

// A checkpoint's own folder, or the newest whole one in a run's.
std::filesystem::path checkpoint_in(const std::string& run) {
  const std::filesystem::path folder(run);
  if (std::filesystem::exists(folder / "manifest.json")) return folder;
  const LatestCheckpoint latest = find_latest_checkpoint(folder);
  for (const LatestCheckpoint::Skipped& skipped : latest.skipped) {
    std::cerr << "skipped " << skipped.folder.string() << ": " << skipped.why << '\n';
  }
  if (latest.folder) return *latest.folder;
  throw FileError("there is no whole checkpoint here",
                  {.where = run, .expected = "a run's folder, or a checkpoint in one"});
}

void run(const ExportCommandOptions& options) {
  const std::filesystem::path folder = checkpoint_in(options.run);
  const TrainingCheckpoint checkpoint(folder);
  checkpoint.check_files();
  const TrainingPoint& point = checkpoint.point();
  export_checkpoint(options.out, point.model_config, point.connectivity,
                    weights_of_checkpoint(checkpoint),
                    {.dtype = options.dtype == "float32" ? at::kFloat : at::kBFloat16,
                     .companions_from = options.companions});
  std::cerr << options.out << ": weights of " << folder.string() << ", step " << point.step << ", "
            << options.dtype << '\n';
}

}  // namespace

void add_export_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("export", "A training run's weights as a Hugging Face folder");
  auto options = std::make_shared<ExportCommandOptions>();
  command->add_option("run", options->run, "the run's folder, or one of its checkpoints")
      ->required();
  command->add_option("--out", options->out, "folder to make; must not exist, or be empty")
      ->required();
  command->add_option("--dtype", options->dtype, "of the weights")
      ->capture_default_str()
      ->check(CLI::IsMember({"float32", "bfloat16"}));
  command->add_option("--tokenizer-from", options->companions,
                      "folder whose tokenizer and generation files are copied");
  command->callback([options] { run(*options); });
}

}  // namespace farskip
