#include "data/token_file_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "data/output_file.h"
#include "data/token_index.h"

namespace smlp {

namespace {
constexpr std::int64_t small_vocabulary = 65500;  // Megatron's limit for u16
constexpr std::int64_t longest_sequence = std::int64_t{1}
                                          << 30;  // a length is an i32; longer documents are split
}  // namespace

// The lengths wait in a file of their own until their number is known: positive for the last sequence of a
// document, negative for one that its document goes on after.
struct TokenFileWriter::Impl {
  Impl(const std::string& prefix, std::int64_t size)
      : tokens_name(prefix + ".bin"),
        vocabulary(size),
        type(size < small_vocabulary ? TokenType::unsigned_16 : TokenType::signed_32),
        bin(tokens_name),
        index(prefix + ".idx"),
        lengths(prefix + ".lengths") {}

  void end_sequence(bool document_ends) {
    lengths->put(static_cast<std::int32_t>(document_ends ? current : -current));
    ++sequences;
    current = 0;
  }
  void each_length(const std::function<void(std::int32_t)>& use) const;
  void write_index();

  std::filesystem::path tokens_name;
  std::int64_t vocabulary;
  TokenType type;
  OutputFile bin, index;
  std::optional<OutputFile> lengths;
  std::vector<std::uint16_t> narrow;
  std::int64_t current = 0, tokens = 0, sequences = 0, documents = 0;
  bool open = false;
};

void TokenFileWriter::Impl::each_length(const std::function<void(std::int32_t)>& use) const {
  std::vector<std::int32_t> piece(1 << 16);
  for (std::int64_t i = 0; i < sequences;) {
    const auto count = std::min<std::int64_t>(sequences - i, std::ssize(piece));
    lengths->read(4 * i, piece.data(), static_cast<std::size_t>(4 * count));
    std::for_each(piece.begin(), piece.begin() + count, use);
    i += count;
  }
}

void TokenFileWriter::Impl::write_index() {
  lengths->flush();
  index.write("MMIDIDX\0\0", 9);
  index.put(std::uint64_t{1});
  index.put(static_cast<std::uint8_t>(type));
  index.put(sequences);
  index.put(documents + 1);
  each_length([&](std::int32_t length) { index.put(std::abs(length)); });
  std::int64_t pointer = 0;
  each_length([&](std::int32_t length) {
    index.put(pointer);
    pointer += std::abs(length) * bytes_per_token(type);
  });
  std::int64_t sequence = 0;
  index.put(sequence);
  each_length([&](std::int32_t length) {
    ++sequence;
    if (length >= 0) index.put(sequence);
  });
}

TokenFileWriter::TokenFileWriter(const std::string& prefix, std::int64_t vocabulary)
    : impl_(std::make_unique<Impl>(prefix, vocabulary)) {}
TokenFileWriter::~TokenFileWriter() = default;

void TokenFileWriter::append(std::span<const std::int32_t> tokens) {
  auto& my = *impl_;
  my.open = true;
  while (!tokens.empty()) {
    if (my.current == longest_sequence) my.end_sequence(false);
    const auto part = tokens.first(
        static_cast<std::size_t>(std::min<std::int64_t>(std::ssize(tokens), longest_sequence - my.current)));
    for (const auto token : part)
      expect(token >= 0 && token < my.vocabulary, "a token outside its vocabulary was to be written");
    if (my.type == TokenType::unsigned_16) {
      my.narrow.assign(part.begin(), part.end());
      my.bin.write(my.narrow.data(), 2 * my.narrow.size());
    } else {
      my.bin.write(part.data(), part.size_bytes());
    }
    my.current += std::ssize(part);
    my.tokens += std::ssize(part);
    tokens = tokens.subspan(part.size());
  }
}

void TokenFileWriter::end_document() {
  impl_->end_sequence(true);
  ++impl_->documents;
  impl_->open = false;
}

void TokenFileWriter::finish() {
  auto& my = *impl_;
  if (my.open) end_document();
  my.write_index();
  my.lengths.reset();
  my.bin.sync();
  my.index.sync();
  std::error_code code;
  // First, so that old tokens never lie beside a new index. Tokens never lie there without one, which find_text() would take
  // for text.
  std::filesystem::remove(my.tokens_name, code);
  if (code) {
    throw Error(ExitCode::io_failed,
                fmt::format("the older {} can't be removed: {}", my.tokens_name.string(), code.message()));
  }
  my.index.publish();
  my.bin.publish();
}

std::int64_t TokenFileWriter::tokens() const { return impl_->tokens; }
std::int64_t TokenFileWriter::documents() const { return impl_->documents; }

}  // namespace smlp
