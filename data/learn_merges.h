// The core of the trainer, free of files: from counted words to merges. Counts of pairs are kept up to date
// while merging, in the words that change alone.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/merge_table.h"
#include "data/word_counts.h"

namespace smlp {

struct LearnedMerges {
  std::vector<std::string> tokens;  // by id, as bytes: the 256 single ones first, in GPT-2's order
  std::vector<Merge> merges;        // in order of rank
};

// Up to `tokens` tokens, the 256 included; fewer when no pair is left that occurs twice. The most frequent
// pair is merged first, of equals the one with the smaller (left, right). `between` is called before each
// merge with the tokens there are; what it throws ends the learning.
LearnedMerges learn_merges(const std::vector<WordCount>& words, std::int64_t tokens,
                           const std::function<void(std::int64_t)>& between);

}  // namespace smlp
