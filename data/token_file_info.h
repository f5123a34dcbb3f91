// Notes beside a token file, prefix.json: which tokenizer made it and how much text it holds. A token file of
// another program has none; then every member is absent.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "data/tokenizer.h"

namespace smlp {

struct TokenFileInfo {
  std::optional<std::string> tokenizer;    // as it was named: "bytes" or a folder
  std::optional<std::string> fingerprint;  // Tokenizer::fingerprint()
  std::optional<std::int64_t> vocabulary, documents, tokens;
  std::optional<std::int64_t> bytes;  // of the text, without end-of-text tokens
};

TokenFileInfo read_info(const std::string& prefix);  // Error(bad_data) when prefix.json is damaged
void write_info(const std::string& prefix, const TokenFileInfo& info);
// Error(configuration) when prefix.json says that another tokenizer made the file.
void check_tokenizer(const std::string& prefix, const Tokenizer& tokenizer,
                     const std::string& tokenizer_name);

}  // namespace smlp
