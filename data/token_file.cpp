#include "data/token_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <optional>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "data/mapped_file.h"
#include "data/token_file_info.h"
#include "data/token_index.h"

namespace smlp {

namespace {

// Copies and widens; returns the largest value as u64 (a negative one comes out huge), for the caller to
// judge.
template <class T>
std::uint64_t widen(const std::byte* source, std::span<std::int32_t> out) {
  const auto* values =
      reinterpret_cast<const T*>(source);  // pages are aligned, and so is every multiple of T
  T least = 0, largest = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    least = std::min(least, values[i]);
    largest = std::max(largest, values[i]);
    out[i] = static_cast<std::int32_t>(values[i]);
  }
  return least < 0 ? std::numeric_limits<std::uint64_t>::max() : static_cast<std::uint64_t>(largest);
}

std::uint64_t widen(TokenType type, const std::byte* source, std::span<std::int32_t> out) {
  switch (type) {
    case TokenType::unsigned_8:
      return widen<std::uint8_t>(source, out);
    case TokenType::signed_8:
      return widen<std::int8_t>(source, out);
    case TokenType::signed_16:
      return widen<std::int16_t>(source, out);
    case TokenType::unsigned_16:
      return widen<std::uint16_t>(source, out);
    case TokenType::signed_32:
      return widen<std::int32_t>(source, out);
    case TokenType::unsigned_32:
      return widen<std::uint32_t>(source, out);
    case TokenType::signed_64:
      return widen<std::int64_t>(source, out);
    case TokenType::unsigned_64:
      return widen<std::uint64_t>(source, out);
  }
  return 0;
}

[[noreturn]] void refuse_missing(const std::string& prefix, const std::string& missing) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const auto prepare = [](const std::string& file, const std::string& output) {
    return fmt::format(
        "prepare it with `smlp data prepare --input {} --tokenizer DIR --output {}` and name the output",
        file, output);
  };
  std::string remedy;
  const fs::path path(prefix);
  if (path.extension() == ".bin" || path.extension() == ".idx") {
    remedy = fmt::format("a prefix is given without .bin or .idx: {}",
                         fs::path(prefix).replace_extension().string());
  } else if (fs::exists(prefix + ".bin", ignored)) {
    remedy = fmt::format(
        "{0}.bin alone does not say how its tokens are stored; copy the .idx file that belongs to it, or {1}",
        prefix, prepare("FILE", prefix));
  } else if (fs::is_directory(path, ignored)) {
    remedy = fmt::format("it is a folder; {}", prepare(prefix, (path / "tokens").string()));
  } else if (fs::exists(path, ignored)) {
    auto output = path;
    output.replace_extension();
    remedy = fmt::format("it is a text file; {}",
                         prepare(prefix, output == path ? prefix + ".tokens" : output.string()));
  } else {
    remedy = "`smlp data prepare --input FILE --tokenizer DIR --output PREFIX` makes one from text";
  }
  throw Error(ExitCode::configuration,
              fmt::format("{} does not name a token file ({} is missing): {}", prefix, missing, remedy));
}

std::string existing(const std::string& prefix, const char* ending) {
  if (kind_of_path(prefix + ending) == PathKind::absent) refuse_missing(prefix, prefix + ending);
  return prefix + ending;
}

}  // namespace

struct TokenFile::Impl {
  explicit Impl(const std::string& prefix)
      : name(prefix),
        bin(existing(prefix, ".bin")),
        index(read_token_index(MappedFile(existing(prefix, ".idx")).bytes(),
                               static_cast<std::int64_t>(bin.bytes().size()), prefix + ".idx")),
        vocabulary(read_info(prefix).vocabulary) {}

  std::string name;
  MappedFile bin;
  TokenIndex index;
  std::optional<std::int64_t> vocabulary;  // of the tokenizer that made the file, if its notes say it
};

TokenFile::TokenFile(const std::string& prefix) : impl_(std::make_unique<Impl>(prefix)) {}
TokenFile::~TokenFile() = default;
TokenFile::TokenFile(TokenFile&&) noexcept = default;

std::int64_t TokenFile::tokens() const { return impl_->index.tokens; }
std::int64_t TokenFile::sequences() const { return impl_->index.sequences; }
std::int64_t TokenFile::documents() const { return impl_->index.documents; }
const char* TokenFile::layout() const { return impl_->index.layout; }
const char* TokenFile::type() const { return name_of(impl_->index.type); }

std::int64_t TokenFile::largest_token() const {
  std::vector<std::int32_t> piece(1 << 16);
  std::int64_t largest = 0;
  for (std::int64_t first = 0; first < tokens();) {
    const auto count = std::min<std::int64_t>(tokens() - first, std::ssize(piece));
    const auto part = std::span(piece).first(static_cast<std::size_t>(count));
    read(first, part);
    largest = std::max<std::int64_t>(largest, *std::max_element(part.begin(), part.end()));
    first += count;
  }
  return largest;
}

void TokenFile::read(std::int64_t first, std::span<std::int32_t> out) const {
  const auto count = static_cast<std::int64_t>(out.size());
  expect(first >= 0 && first <= tokens() && count <= tokens() - first,
         "tokens beyond the end of a token file were asked for");
  if (out.empty()) return;
  const auto type = impl_->index.type;
  const auto largest = widen(type, impl_->bin.bytes().data() + first * bytes_per_token(type), out);
  if (largest > static_cast<std::uint64_t>(std::numeric_limits<std::int32_t>::max())) {
    throw Error(
        ExitCode::bad_data,
        fmt::format("{}.bin holds a token that is negative or above 2^31 - 1, between tokens {} and {}; the "
                    "file is damaged or of another type than the {} its index says",
                    impl_->name, first, first + count, name_of(type)));
  }
  if (impl_->vocabulary && static_cast<std::int64_t>(largest) >= *impl_->vocabulary) {
    throw Error(ExitCode::bad_data,
                fmt::format("{0}.bin holds token {1} between tokens {2} and {3}, but {0}.json says that its "
                            "tokenizer has 0 to {4}: the file is damaged, copy or prepare it again",
                            impl_->name, largest, first, first + count, *impl_->vocabulary - 1));
  }
}

}  // namespace smlp
