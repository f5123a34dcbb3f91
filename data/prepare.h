// From text to token files: documents encoded in order by several threads, an end-of-text token after each,
// notes beside the result (data/token_file_info.h). Memory does not grow with the text (except for a stretch
// without any place to cut it, see Tokenizer::safe_cut); the result is that of encoding each document whole.
//
// Validation share X. Of one document (one input file that is no .jsonl), the last X of its bytes become the
// validation document, from the next line on. Of several, a whole document goes there if the hash of its
// first bytes (64 KiB at most) falls into the lowest X of all hashes: about X of the documents, the same ones
// every time, and equal documents on the same side.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/token_file_info.h"

namespace smlp {

struct PrepareProgress {
  std::int64_t bytes_read = 0, bytes_in_all = 0;
  std::int64_t documents = 0, tokens = 0;
};

struct PrepareSettings {
  std::vector<std::string> inputs = {};  // files and folders, see find_text()
  std::string tokenizer = {};            // a folder or "bytes"
  std::string output = {};               // prefix
  std::string valid_output = {};         // prefix; "": no validation data
  double valid_share = 0;                // of the text; above 0 and below 1 with valid_output
  std::int64_t threads = 0;              // 0: as many as the machine has
  std::int64_t piece_bytes = 1 << 20;
  std::function<void(const PrepareProgress&)> progress = {};
  std::function<bool()> stop = {};  // true: give up with Error(call_again) and leave nothing behind
};

struct PrepareResult {
  TokenFileInfo train;
  std::optional<TokenFileInfo> valid;
};

PrepareResult prepare(const PrepareSettings& settings);

}  // namespace smlp
