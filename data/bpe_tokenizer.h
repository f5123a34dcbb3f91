// A tokenizer from GPT-2's two files: vocab.json (spelling -> id) and merges.txt (one merge a line, best
// first). docs/data_format.md describes them.
#pragma once

#include <memory>
#include <string>

#include "data/tokenizer.h"

namespace smlp {

// Throws Error(configuration) when a file is missing, bad_data with file, line and reason when it is corrupt.
std::unique_ptr<Tokenizer> open_bpe_tokenizer(const std::string& folder);

}  // namespace smlp
