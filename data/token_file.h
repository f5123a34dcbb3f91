// A memory-mapped file of tokens, prefix.bin with prefix.idx: Megatron's layout, or fairseq's, told apart by
// size (docs/data_format.md). Read-only, shared between processes through the page cache.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace smlp {

class TokenFile {
 public:
  // Throws Error(configuration) when a file is missing, naming the command that prepares it when `prefix` is
  // a text file; Error(bad_data) when the index and the tokens do not fit together or
  // prefix.json is damaged.
  explicit TokenFile(const std::string& prefix);
  ~TokenFile();
  TokenFile(TokenFile&&) noexcept;

  std::int64_t tokens() const;     // in all sequences together
  std::int64_t sequences() const;  // entries of the index
  std::int64_t documents() const;
  std::int64_t largest_token() const;  // reads everything once; for checks
  const char* layout() const;          // "megatron", "fairseq"
  const char* type() const;            // of a token in the file: "u16", "i32", ...
  // Tokens [first, first + out.size()) of the concatenation, widened to i32. Error(bad_data) when one of them
  // is negative, does not fit an i32, or is none of the vocabulary that prefix.json states.
  void read(std::int64_t first, std::span<std::int32_t> out) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace smlp
