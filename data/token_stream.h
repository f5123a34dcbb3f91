// Training sequences in an order that a number can name: sequence p of a run is a function of (files, weights,
// context, seed, p), found in O(1). Resuming is starting at another p.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/token_file.h"

namespace smlp {

struct StreamSettings {
  std::vector<std::string> prefixes;
  std::vector<double> weights;  // empty: by size
  std::int64_t context = 0;
  std::uint64_t seed = 0;
  bool shuffle = true;          // false: windows in file order, for evaluation
};

class TokenStream {
 public:
  explicit TokenStream(const StreamSettings& settings);  // Error(configuration) when the data is shorter than a sequence
  ~TokenStream();

  // Windows of context + 1 tokens in all files together: an epoch when weights are empty.
  std::int64_t windows() const;
  // Sequences [position, position + count) of the run: tokens and next-token targets, [count, context] each.
  void read(std::int64_t position, std::int64_t count, std::span<std::int32_t> tokens,
            std::span<std::int32_t> targets) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace smlp
