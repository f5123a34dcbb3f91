// A tokenizer small enough to follow by hand: the 256 bytes, then one token a merge, then the end of text.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "data/byte_alphabet.h"
#include "data/tokenizer.h"
#include "tests/data/scratch.h"

namespace smlp::test {

using MergeList = std::vector<std::pair<std::string, std::string>>;  // as bytes

inline std::map<std::string, int> tiny_vocabulary(const MergeList& merges) {
  std::map<std::string, int> ids;
  int next = 0;
  for (const auto byte : bytes_in_alphabet_order()) ids[std::string(1, static_cast<char>(byte))] = next++;
  for (const auto& [left, right] : merges) ids.emplace(left + right, next++);
  return ids;
}

inline void write_tiny_tokenizer(const std::string& folder, const MergeList& merges) {
  nlohmann::json vocabulary;
  for (const auto& [token, id] : tiny_vocabulary(merges)) vocabulary[spell_bytes(token)] = id;
  vocabulary[std::string(end_of_text_name)] = 256 + static_cast<int>(merges.size());
  std::string lines = "#version: 0.2\n";
  for (const auto& [left, right] : merges) lines += spell_bytes(left) + " " + spell_bytes(right) + "\n";
  write_file(folder + "/vocab.json", vocabulary.dump());
  write_file(folder + "/merges.txt", lines);
}

inline std::vector<std::int32_t> encode(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::int32_t> ids;
  tokenizer.encode(text, ids);
  return ids;
}

}  // namespace smlp::test
