#include "farskip/io/corpus.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "farskip/base/files.h"
#include "farskip/base/json.h"
#include "farskip/base/parallel.h"
#include "farskip/base/progress.h"
#include "farskip/io/utf8.h"

namespace farskip {
namespace {

// Encoded at once; all ids of so much text are in memory.
constexpr size_t batch_bytes = size_t{16} << 20;

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.size()};
}

// Encodes batches of documents on several threads and adds them in order.
class CorpusEncoder {
 public:
  CorpusEncoder(const Tokenizer& tokenizer, TokenSink& sink, Progress& progress)
      : tokenizer_(tokenizer),
        sink_(sink),
        progress_(progress),
        frequencies_(static_cast<size_t>(tokenizer.vocabulary_size())) {}

  void add_text(const std::filesystem::path& path, const std::string& separator) {
    const MappedFile file(path);
    const std::string_view text = text_of(file);
    DocumentSplitter documents(text, separator);
    std::vector<std::string_view> batch;
    size_t bytes = 0;
    while (const auto document = documents.next()) {
      batch.push_back(*document);
      bytes += document->size();
      if (bytes < batch_bytes) continue;
      encode(batch, text, path.string());
      batch.clear();
      bytes = 0;
    }
    encode(batch, text, path.string());
  }

  double unigram_entropy() const {
    double sum = 0, entropy = 0;
    for (const uint64_t count : frequencies_) sum += static_cast<double>(count);
    for (const uint64_t count : frequencies_) {
      const double share = static_cast<double>(count) / sum;
      if (count > 0) entropy -= share * std::log(share);
    }
    return entropy;
  }

  void count_ends(int32_t id) { frequencies_[static_cast<size_t>(id)] += sink_.counts().documents; }

 private:
  void encode(const std::vector<std::string_view>& documents, std::string_view text,
              const std::string& path) {
    std::vector<std::vector<int32_t>> ids(documents.size());
    parallel_for(documents.size(), [&](size_t i) {
      require_utf8(documents[i], path, static_cast<size_t>(documents[i].data() - text.data()));
      ids[i] = tokenizer_.encode(documents[i]);
    });
    for (size_t i = 0; i < ids.size(); ++i) {
      sink_.add_document(ids[i], documents[i].size());
      for (const int32_t id : ids[i]) ++frequencies_[static_cast<size_t>(id)];
    }
    progress_.update(static_cast<int64_t>(sink_.counts().text_bytes), "bytes");
  }

  const Tokenizer& tokenizer_;
  TokenSink& sink_;
  Progress& progress_;
  std::vector<uint64_t> frequencies_;  // by id
};

}  // namespace

size_t DocumentSplitter::find_separator() const {
  for (size_t from = position_; !separator_.empty();) {
    const size_t begin = text_.find(separator_, from);
    if (begin == std::string_view::npos) break;
    const size_t end = begin + separator_.size();
    const bool is_line =
        (begin == 0 || text_[begin - 1] == '\n') && (end == text_.size() || text_[end] == '\n');
    if (is_line) return begin;
    from = begin + 1;
  }
  return text_.size();
}

std::optional<std::string_view> DocumentSplitter::next() {
  while (position_ < text_.size()) {
    const size_t begin = position_, end = find_separator();
    position_ = end + separator_.size() + 1;
    if (end > begin) return text_.substr(begin, end - begin);
  }
  return std::nullopt;
}

CorpusReport tokenize_corpus(const Tokenizer& tokenizer,
                             std::span<const std::filesystem::path> texts,
                             const std::filesystem::path& output, const CorpusOptions& options) {
  int64_t bytes = 0;
  for (const auto& path : texts) bytes += static_cast<int64_t>(MappedFile(path).size());
  CorpusReport report;
  const TokenSource source{.vocabulary = tokenizer.vocabulary_size(),
                           .tokenizer_fingerprint = tokenizer.fingerprint(),
                           .end_of_document = options.end_of_document};
  report.counts = write_token_file(output, source, [&](TokenSink& sink) {
    Progress progress("tokenizing", bytes);
    CorpusEncoder encoder(tokenizer, sink, progress);
    for (const auto& path : texts) encoder.add_text(path, options.separator);
    if (options.end_of_document) encoder.count_ends(*options.end_of_document);
    report.unigram_entropy = encoder.unigram_entropy();
  });
  return report;
}

std::optional<int32_t> find_end_of_text(const Tokenizer& tokenizer,
                                        const std::filesystem::path& tokenizer_file) {
  if (const auto id = tokenizer.id_of("<|endoftext|>")) return id;
  const auto config_file = tokenizer_file.parent_path() / "tokenizer_config.json";
  if (!std::filesystem::exists(config_file)) return std::nullopt;
  const Json config = read_json_file(config_file);
  const auto token = optional<Json>(config, "eos_token", config_file.string());
  if (!token) return std::nullopt;
  if (token->is_string()) return tokenizer.id_of(token->get<std::string>());
  return tokenizer.id_of(require<std::string>(*token, "content", config_file.string()));
}

}  // namespace farskip
