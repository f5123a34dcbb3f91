// Text to token ids and back, exactly: decode(encode(text)) is text, byte for byte, invalid UTF-8 included.
// A tokenizer is "bytes" (256 ids and an end-of-text id) or a folder with GPT-2's vocab.json and merges.txt.
// Invalid UTF-8: a byte that belongs to no character is encoded by its own token, and what lies between such
// bytes as if it were a text of its own (data/word_splitter.h). Immutable once opened; used by several
// threads at once.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace smlp {

// How the token between documents is spelled in vocab.json. In a text the same letters are ordinary text.
inline constexpr std::string_view end_of_text_name = "<|endoftext|>";

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual void encode(std::string_view text, std::vector<std::int32_t>& append_to) const = 0;
  // The end-of-text token comes out under its name. Error(bad_data) for an id that has no token.
  virtual std::string decode(std::span<const std::int32_t> ids) const = 0;
  virtual std::int64_t vocabulary() const = 0;  // largest id + 1
  virtual bool has(std::int32_t id) const = 0;  // ids may have gaps
  virtual bool has_end_of_text() const = 0;
  // Id that ends a document. Error(bad_data) when vocab.json has none.
  virtual std::int32_t end_of_text() const = 0;
  // The largest p < text.size() for which encode(text[0, p)) followed by encode(text[p, ...) and whatever
  // comes after) is the encoding of the whole, so that a long text can be encoded piece by piece; 0 when
  // there is none.
  virtual std::size_t safe_cut(std::string_view text) const = 0;
  // The same for tokenizers that give the same ids; token files carry it (data/prepare.h).
  virtual std::string fingerprint() const = 0;
};

// Throws Error(configuration) when the folder or one of its files is missing, bad_data when one is corrupt.
std::unique_ptr<Tokenizer> open_tokenizer(const std::string& folder_or_bytes);

// Throws Error(configuration) where it is not the one of this fingerprint, with which `model` was trained; "" is any.
void expect_tokenizer(const Tokenizer& tokenizer, const std::string& name, const std::string& fingerprint,
                      const std::string& model);

}  // namespace smlp
