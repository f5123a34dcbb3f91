// Byte-pair encoding of text: words by WordSplitter, each word merged pair by pair, lowest rank first and
// leftmost among equals. Remembers words it met; that memory is bounded. One encoder serves one thread at a
// time.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "data/merge_table.h"
#include "data/word_splitter.h"

namespace smlp {

class BpeEncoder {
 public:
  // `merges` must outlive the encoder; `byte_ids`: the token of each single byte.
  BpeEncoder(const MergeTable& merges, const std::array<std::int32_t, 256>& byte_ids);

  void encode(std::string_view text, std::vector<std::int32_t>& append_to);

 private:
  // A word and its tokens in one cache line.
  struct alignas(64) Known {
    std::uint8_t bytes = 0, tokens = 0;
    char word[30] = {};
    std::int32_t ids[8] = {};
  };
  // What the pair that starts at a token would become.
  struct Part {
    std::int32_t id;
    std::uint32_t rank;  // of the pair (this, next)
    std::int32_t merged;
  };
  struct Node {
    std::int32_t id;
    std::uint32_t before, after;  // neighbours in the word
  };

  void encode_word(std::string_view word, std::vector<std::int32_t>& append_to);
  void merge_short(std::string_view word, std::vector<std::int32_t>& append_to);
  void merge_long(std::string_view word, std::vector<std::int32_t>& append_to);
  void look_at(std::size_t part);

  const MergeTable& merges_;
  std::array<std::int32_t, 256> byte_ids_;
  WordSplitter splitter_;
  std::vector<Known> known_;
  std::vector<Part> parts_;
};

}  // namespace smlp
