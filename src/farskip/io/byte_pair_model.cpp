#include "farskip/io/byte_pair_model.h"

#include <algorithm>
#include <cstdio>

#include "farskip/base/error.h"
#include "farskip/base/hash.h"
#include "farskip/io/byte_alphabet.h"

namespace farskip {
namespace {

uint64_t pair_of(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

size_t BytePairModel::PairHash::operator()(uint64_t pair) const { return splitmix64(pair); }

BytePairModel::BytePairModel(const TokenizerDefinition& definition) {
  byte_ids_.fill(-1);
  for (const auto& [token, id] : definition.vocabulary) {
    const auto bytes = bytes_from_alphabet(token);
    if (!bytes) continue;  // no text leads to it
    if (bytes->size() == 1) byte_ids_[static_cast<unsigned char>(bytes->front())] = id;
    if (definition.ignore_merges) whole_.emplace(*bytes, id);
  }
  const auto& vocabulary = definition.vocabulary;
  merges_.reserve(definition.merges.size());
  for (size_t rank = 0; rank < definition.merges.size(); ++rank) {
    const auto& [left, right] = definition.merges[rank];
    merges_[pair_of(vocabulary.at(left), vocabulary.at(right))] = {static_cast<int32_t>(rank),
                                                                   vocabulary.at(left + right)};
  }
}

int32_t BytePairModel::id_of_byte(char byte) const {
  const auto value = static_cast<unsigned char>(byte);
  if (byte_ids_[value] >= 0) return byte_ids_[value];
  std::array<char, 8> text{};
  std::snprintf(text.data(), text.size(), "0x%02X", value);
  throw UnsupportedError("text can not be encoded",
                         {.where = "tokenizer",
                          .expected = "a vocabulary with a token for every byte",
                          .found = std::string("none for byte ") + text.data(),
                          .hint = "train the tokenizer with the whole byte alphabet"});
}

// The merge of the symbol at `position` with the one behind it, if there is one.
std::optional<BytePairModel::Workspace::Candidate> BytePairModel::candidate_at(
    const std::vector<Workspace::Symbol>& symbols, int32_t position) const {
  if (position < 0) return std::nullopt;
  const auto& left = symbols[static_cast<size_t>(position)];
  if (left.id < 0 || left.next < 0) return std::nullopt;
  const auto found = merges_.find(pair_of(left.id, symbols[static_cast<size_t>(left.next)].id));
  if (found == merges_.end()) return std::nullopt;
  return Workspace::Candidate{found->second.rank, position, found->second.result};
}

void BytePairModel::merge_all(Workspace& workspace) const {
  auto& [symbols, queue] = workspace;
  const auto is_later = [](const auto& a, const auto& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  queue.clear();
  for (size_t i = 0; i < symbols.size(); ++i) {
    if (const auto found = candidate_at(symbols, static_cast<int32_t>(i))) queue.push_back(*found);
  }
  std::make_heap(queue.begin(), queue.end(), is_later);
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), is_later);
    const auto candidate = queue.back();
    queue.pop_back();
    // Either side may have changed since the candidate was found.
    const auto now = candidate_at(symbols, candidate.position);
    if (!now || now->result != candidate.result) continue;
    auto& left = symbols[static_cast<size_t>(candidate.position)];
    auto& right = symbols[static_cast<size_t>(left.next)];
    left.id = candidate.result;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = candidate.position;
    for (const int32_t position : {left.previous, candidate.position}) {
      if (const auto found = candidate_at(symbols, position)) {
        queue.push_back(*found);
        std::push_heap(queue.begin(), queue.end(), is_later);
      }
    }
  }
}

void BytePairModel::encode(std::string_view word, std::vector<int32_t>& ids,
                           Workspace& workspace) const {
  if (word.empty()) return;
  if (const auto token = whole_.find(word); token != whole_.end()) {
    ids.push_back(token->second);
    return;
  }
  auto& symbols = workspace.symbols;
  symbols.clear();
  for (const char byte : word) {
    const auto position = static_cast<int32_t>(symbols.size());
    symbols.push_back({id_of_byte(byte), position - 1, position + 1});
  }
  symbols.back().next = -1;
  merge_all(workspace);
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next) {
    ids.push_back(symbols[static_cast<size_t>(i)].id);
  }
}

}  // namespace farskip
