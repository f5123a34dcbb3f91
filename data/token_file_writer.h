// Writes prefix.bin and prefix.idx in Megatron's layout, one sequence a document (docs/data_format.md).
// Tokens and lengths go to disk as they come: memory does not grow with the text. Until finish() everything
// lies under temporary names beside the final ones, and the destructor removes them: readers see a whole pair
// or none.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace smlp {

class TokenFileWriter {
 public:
  // Tokens are below `vocabulary`; u16 in the file when that is below 65500, else i32. Creates missing
  // folders.
  TokenFileWriter(const std::string& prefix, std::int64_t vocabulary);
  ~TokenFileWriter();

  void append(std::span<const std::int32_t> tokens);  // to the current document
  void end_document();
  // Flushes to the disk and gives both files their names. An older pair of that name disappears first.
  // Tokens after the last end_document() become a document of their own.
  void finish();

  std::int64_t tokens() const;
  std::int64_t documents() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace smlp
