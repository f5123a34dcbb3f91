// Training sequences in an order that a number can name: sequence p of a run is a function of (files,
// weights, context, seed, p), found in O(1). Resuming is starting at another p.
//
// A file of n tokens holds (n - 1) / context windows (rounded down) of context + 1 tokens, at stride context:
// the last token of one is the first of the next. The order of sequences is then one of these:
//   no weights      all windows of all files are one pool; epoch e visits each once, in the order
//                   permute(i, windows, key(seed, e)). So files share by size.
//   weights         a pattern of 4096 slots (doubled while there are fewer than 16 a file) that repeats for
//                   ever. A file owns slots by largest remainder, one at least, spread evenly: its j-th of c
//                   lies at (j + 1/2) / c of the pattern. The n-th slot of a file since the start of the run
//                   takes window permute(n mod w, w, key(seed, file, n / w)) of its w: every file has epochs
//                   of its own.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/token_file.h"

namespace smlp {

struct StreamSettings {
  std::vector<std::string> prefixes = {};
  std::vector<double> weights = {};  // one a file, any scale, 0 leaves a file out; empty: by size
  std::int64_t context = 0;
  std::uint64_t seed = 0;
};

class TokenStream {
 public:
  // Error(configuration) when a file is shorter than a sequence, or weights are not one non-negative number a
  // file.
  explicit TokenStream(const StreamSettings& settings);
  ~TokenStream();

  // Windows of context + 1 tokens in all files together: an epoch when weights are empty.
  std::int64_t windows() const;
  std::vector<std::int64_t> tokens() const;  // of each file: with other numbers the order of sequences is another
  // Digest of 256 pieces of 64 tokens spread evenly over the files, 4 a file at least: other files of the same
  // lengths have another but by the rarest accident; a change between the pieces stays unseen. 32 hex digits.
  std::string sample_digest() const;
  // Sequences [position, position + count) of the run: tokens and next-token targets, [count, context] each.
  void read(std::int64_t position, std::int64_t count, std::span<std::int32_t> tokens,
            std::span<std::int32_t> targets) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace smlp
