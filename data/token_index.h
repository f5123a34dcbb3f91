// What an index file (.idx) says about its tokens, checked against the size of the .bin file. Both layouts of
// docs/data_format.md; used by TokenFile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace smlp {

// The codes that both layouts give to integers; unsigned_32 and unsigned_64 exist in fairseq's alone.
enum class TokenType : std::uint8_t {
  unsigned_8 = 1,
  signed_8 = 2,
  signed_16 = 3,
  signed_32 = 4,
  signed_64 = 5,
  unsigned_16 = 8,
  unsigned_32 = 9,
  unsigned_64 = 10,
};
std::int64_t bytes_per_token(TokenType type);
const char* name_of(TokenType type);  // "u16"

struct TokenIndex {
  const char* layout = "";
  TokenType type = TokenType::unsigned_16;
  std::int64_t sequences = 0;
  std::int64_t documents = 0;
  std::int64_t tokens = 0;
};

// `path` names the index in sentences. Throws Error(bad_data) unless index and tokens fit together exactly.
TokenIndex read_token_index(std::span<const std::byte> index, std::int64_t token_bytes,
                            const std::string& path);

}  // namespace smlp
