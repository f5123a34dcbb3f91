// How often each word of a text occurs, counted by several threads. The words are WordSplitter's; longer ones
// than 256 bytes (encoded pictures, runs of dashes) count as pieces of that length, so that no single one
// rules training.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/text_reader.h"

namespace smlp {

struct WordCount {
  std::string word;
  std::int64_t count = 0;
};

// Sorted by word: the same for any number of threads. `between` is called after every piece, on the caller's
// thread, with the bytes read so far; what it throws ends the counting.
std::vector<WordCount> count_words(const std::vector<TextFile>& files, std::int64_t threads,
                                   const std::function<void(std::int64_t)>& between);

}  // namespace smlp
