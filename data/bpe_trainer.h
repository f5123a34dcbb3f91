// Learns a byte-pair encoding from text and writes it as vocab.json and merges.txt (docs/data_format.md): the
// 256 bytes in GPT-2's order, one token for each merge, <|endoftext|> last. The result is a function of the
// text alone: again and again the pair that occurs most often becomes a token, of equals the one with the
// smaller ids.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace smlp {

struct TrainerProgress {
  std::int64_t bytes_read = 0, bytes_in_all = 0;
  std::int64_t vocabulary = 0, wanted = 0;  // tokens so far; 0 while words are counted
};

struct TrainerSettings {
  std::vector<std::string> inputs = {};  // files and folders, see find_text()
  std::int64_t vocabulary = 0;           // tokens in all, 257 at least
  std::string output = {};               // folder, made when missing
  std::int64_t threads = 0;              // 0: as many as the machine has
  std::function<void(const TrainerProgress&)> progress = {};
  std::function<bool()> stop = {};  // true: give up with Error(call_again) before anything is written
};

struct TrainerResult {
  std::int64_t vocabulary = 0;  // less than wanted when no pair was left that occurs twice
  std::int64_t merges = 0;
  std::int64_t distinct_words = 0;
  std::int64_t bytes = 0;  // of the text files
};

inline constexpr std::int64_t largest_vocabulary = 1 << 24;

// Throws Error(usage) for a vocabulary below 257 or above the largest.
TrainerResult train_tokenizer(const TrainerSettings& settings);

}  // namespace smlp
