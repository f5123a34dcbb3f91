// Cuts text into the words that byte-pair encoding works on, by GPT-2's pattern:
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// with the classes of Unicode 16, like the reference tokenizers of 2024 and later, whatever the installed
// PCRE2 knows. Bytes that are no valid UTF-8 are words of one byte each; what lies between them is cut as if
// it were a text of its own. One splitter serves one thread at a time.
#pragma once

#include <cstddef>
#include <memory>
#include <string_view>

namespace smlp {

class WordSplitter {
 public:
  WordSplitter();
  ~WordSplitter();

  void start(std::string_view text);  // which must outlive the words
  bool next(std::string_view& word);  // false: the text is through. Words in order, together the whole text

  // The largest p < text.size() at which cutting changes no word, whatever follows `text`; 0: none. That is
  // before ASCII white space after anything else, or between an ASCII letter or digit and ASCII punctuation.
  static std::size_t safe_cut(std::string_view text);

 private:
  struct Pattern;
  std::unique_ptr<Pattern> pattern_;
  const char* at_ = nullptr;
  const char* valid_end_ = nullptr;
  const char* end_ = nullptr;
};

// Length of the longest prefix of `text` that is valid UTF-8.
std::size_t valid_prefix(std::string_view text);

}  // namespace smlp
