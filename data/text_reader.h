// Documents from files, in pieces that fit into memory. A file is one document; of a .jsonl file each line is
// one, its text under the key "text". Empty documents are left out. Used by prepare() and the tokenizer's
// trainer.
#pragma once

#include <cstdint>
#include <fstream>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace smlp {

struct TextFile {
  std::string path;
  std::int64_t bytes = 0;
};

// The files that `inputs` name: folders with everything beneath them, sorted by path; files in the order
// given. `ignored` paths are left out. Error(configuration) when a path is missing or nothing is left.
std::vector<TextFile> find_text(const std::vector<std::string>& inputs,
                                const std::vector<std::string>& ignored = {});

struct TextPiece {
  std::string text;
  bool first = false, last = false;  // of its document
};

class TextReader {
 public:
  // Where a text may be cut, as Tokenizer::safe_cut() says it.
  using SafeCut = std::function<std::size_t(std::string_view)>;

  // Pieces have about `piece_bytes`; more only where no cut is found in that.
  TextReader(std::vector<TextFile> files, SafeCut safe_cut, std::int64_t piece_bytes = 1 << 20);

  // Makes the one document of the one file into two: [0, offset) and the rest.
  void split_at(std::int64_t offset) { split_ = offset; }
  bool next(TextPiece& piece);
  std::int64_t bytes_read() const { return bytes_read_; }  // of the files

 private:
  bool open_next_document();
  bool open_next_line();
  void read_more(std::int64_t count);
  std::size_t left() const { return buffer_.size() - start_; }

  std::vector<TextFile> files_;
  SafeCut safe_cut_;
  std::int64_t piece_bytes_, split_ = -1, bytes_read_ = 0;

  std::size_t next_file_ = 0;
  std::ifstream stream_;
  bool lines_ = false;  // the open file is .jsonl
  std::int64_t line_ = 0;

  std::string buffer_;  // of the open document, used up to start_
  std::size_t start_ = 0;
  bool inside_ = false, complete_ = true;  // a document is open; all its text is in the buffer
};

}  // namespace smlp
