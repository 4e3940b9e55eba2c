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
#include "farskip/base/format.h"
#include "farskip/cli/commands.h"
#include "farskip/io/corpus.h"

namespace farskip {
namespace {

struct TokenizeOptions {
  std::vector<std::filesystem::path> texts;
  std::string tokenizer, output, check;
  std::string separator = "form-feed";
  std::optional<std::string> end_of_document;
  std::optional<uint64_t> decode;
  bool json = false;
};

std::string separator_line(const std::string& name) {
  if (name == "form-feed") return "\f";
  return name == "none" ? "" : name;
}

std::optional<int32_t> end_of_document(const TokenizeOptions& options, const Tokenizer& tokenizer) {
  if (options.end_of_document == "none") return std::nullopt;
  const auto id = options.end_of_document ? tokenizer.id_of(*options.end_of_document)
                                          : find_end_of_text(tokenizer, options.tokenizer);
  if (id) return id;
  throw UsageError("no token to end documents with", {.where = "--end-of-document",
                                                      .expected = "a token of the vocabulary",
                                                      .found = options.end_of_document.value_or(""),
                                                      .hint = "name one, or say none"});
}

nlohmann::ordered_json describe(const TokenSource& source, const TokenCounts& counts,
                                const std::optional<double>& entropy) {
  nlohmann::ordered_json json = {{"documents", counts.documents},
                                 {"bytes", counts.text_bytes},
                                 {"tokens", counts.ids},
                                 {"vocabulary", source.vocabulary}};
  json["end_of_document"] = nullptr;
  if (source.end_of_document) json["end_of_document"] = *source.end_of_document;
  if (counts.ids > 0) {
    json["bytes_per_token"] =
        static_cast<double>(counts.text_bytes) / static_cast<double>(counts.ids);
  }
  if (entropy) json["unigram_entropy_nats"] = *entropy;
  return json;
}

void print(const nlohmann::ordered_json& report, bool as_json) {
  if (as_json) {
    std::cout << report.dump(2) << '\n';
    return;
  }
  for (const auto& [name, value] : report.items()) {
    std::string label = name;
    std::replace(label.begin(), label.end(), '_', ' ');
    label.resize(22, ' ');
    std::cout << label
              << (value.is_number_float()     ? format_fixed(value.get<double>(), 4)
                  : value.is_number_integer() ? format_integer(value.get<int64_t>())
                                              : "none")
              << '\n';
  }
}

void encode(const TokenizeOptions& options) {
  const Tokenizer tokenizer(options.tokenizer);
  const CorpusOptions corpus{.separator = separator_line(options.separator),
                             .end_of_document = end_of_document(options, tokenizer)};
  const CorpusReport report = tokenize_corpus(tokenizer, options.texts, options.output, corpus);
  const TokenSource source{.vocabulary = tokenizer.vocabulary_size(),
                           .end_of_document = corpus.end_of_document};
  const bool is_empty = report.counts.ids == 0;
  print(describe(source, report.counts,
                 is_empty ? std::nullopt : std::optional(report.unigram_entropy)),
        options.json);
}

void decode(const TokenFile& file, const Tokenizer& tokenizer, uint64_t count) {
  std::vector<int64_t> ids(std::min(count, file.size()));
  file.read(0, ids);
  std::cout << tokenizer.decode(std::vector<int32_t>(ids.begin(), ids.end())) << '\n';
}

void check(const TokenizeOptions& options) {
  const TokenFile file(options.check);
  file.verify();
  std::optional<Tokenizer> tokenizer;
  if (!options.tokenizer.empty()) {
    tokenizer.emplace(std::filesystem::path(options.tokenizer));
    if (tokenizer->fingerprint() != file.source().tokenizer_fingerprint) {
      throw FileError("token file was made with another tokenizer",
                      {.where = options.check, .found = options.tokenizer});
    }
  }
  if (options.decode) return decode(file, *tokenizer, *options.decode);
  print(describe(file.source(), file.counts(), std::nullopt), options.json);
}

// What the parser can not say: the two forms of the command.
void check_form(const TokenizeOptions& options) {
  const auto missing = [](const char* flag) {
    throw UsageError("is missing",
                     {.where = flag, .hint = "farskip tokenize --help lists what goes together"});
  };
  if (options.check.empty()) {
    if (options.texts.empty()) missing("TEXT");
    if (options.output.empty()) missing("--out");
  }
  if (options.tokenizer.empty() && (options.check.empty() || options.decode))
    missing("--tokenizer");
}

}  // namespace

void add_tokenize_command(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("tokenize", "Token files from text, for training and evaluation");
  auto options = std::make_shared<TokenizeOptions>();
  command->add_option("texts", options->texts, "UTF-8 text files");
  command->add_option("--tokenizer", options->tokenizer,
                      "tokenizer.json of a byte-level BPE tokenizer");
  command->add_option("--out", options->output, "the token file to write");
  command
      ->add_option("--separator", options->separator,
                   "line that stands between documents of a text; form-feed, or none: a text is "
                   "one document")
      ->capture_default_str();
  command->add_option("--end-of-document", options->end_of_document,
                      "token behind every document, or none; default <|endoftext|>, or the "
                      "eos_token of the tokenizer_config.json beside the tokenizer");
  CLI::Option* check_option =
      command->add_option("--check", options->check,
                          "instead: verify a token file, and that --tokenizer, if it is given, "
                          "made it");
  check_option->excludes("texts")->excludes("--out");
  command
      ->add_option("--decode", options->decode,
                   "with --check: print the text of the first so many tokens")
      ->needs(check_option);
  command->add_flag("--json", options->json, "print JSON");
  command->callback([options] {
    check_form(*options);
    options->check.empty() ? encode(*options) : check(*options);
  });
}

}  // namespace farskip
