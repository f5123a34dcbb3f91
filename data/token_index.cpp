#include "data/token_index.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <string_view>

#include "core/error.h"

namespace smlp {

static_assert(std::endian::native == std::endian::little,
              "token files are little-endian and mapped as they lie");

namespace {

constexpr std::int64_t fairseq_header = 26, megatron_header = 34;
constexpr std::string_view magic("MMIDIDX\0\0", 9), legacy_magic("TNTIDX\0\0", 8);

// The bytes of an index with its name; every access has been checked against the size by the caller.
struct Reader {
  std::span<const std::byte> bytes;
  const std::string& path;

  template <class T>
  T at(std::int64_t offset) const {
    T value;
    std::memcpy(&value, bytes.data() + offset, sizeof value);
    return value;
  }
  std::int64_t size() const { return static_cast<std::int64_t>(bytes.size()); }
  bool starts_with(std::string_view text) const {
    return bytes.size() >= text.size() && std::memcmp(bytes.data(), text.data(), text.size()) == 0;
  }
  template <class... Arguments>
  [[noreturn]] void refuse(fmt::format_string<Arguments...> sentence, Arguments&&... arguments) const {
    throw Error(ExitCode::bad_data,
                fmt::format("{} is not a usable index of tokens: {}", path,
                            fmt::format(sentence, std::forward<Arguments>(arguments)...)));
  }
};

void check_magic(const Reader& file) {
  if (file.size() == 0) file.refuse("it is empty; prepare the data again");
  if (file.starts_with(legacy_magic)) {
    file.refuse(
        "it is a legacy TNTIDX index, whose tokens are stored plus one; binarize the text again with "
        "fairseq's --dataset-impl mmap, or with `smlp data prepare`");
  }
  if (!file.starts_with(magic)) file.refuse("it does not begin with MMIDIDX");
  if (file.size() < fairseq_header) file.refuse("it ends inside its header, after {} bytes", file.size());
  if (const auto version = file.at<std::uint64_t>(9); version != 1) {
    file.refuse("it has format version {}, this program reads version 1", version);
  }
}

// True for Megatron's layout; the size decides (docs/data_format.md says why never both).
bool is_megatron(const Reader& file, std::int64_t sequences) {
  if (file.size() == fairseq_header + 12 * sequences) return false;
  const std::int64_t rest = file.size() - megatron_header - 12 * sequences;
  if (rest >= 8) {
    const auto count = file.at<std::uint64_t>(26);
    const bool fits = count >= 1 && count <= static_cast<std::uint64_t>(rest) / 8;
    const std::int64_t modes = fits ? rest - 8 * static_cast<std::int64_t>(count) : -1;
    if (modes == 0 || modes == sequences) return true;
  }
  file.refuse(
      "{} bytes fit neither fairseq's nor Megatron's layout for its {} sequences; it is cut short or "
      "damaged, copy or prepare it again",
      file.size(), sequences);
}

TokenType checked_type(const Reader& file, bool megatron) {
  const auto code = file.at<std::uint8_t>(17);
  if (code == 6 || code == 7) file.refuse("its type code {} means floating-point numbers, not tokens", code);
  if (code < 1 || code > (megatron ? 8 : 10)) file.refuse("its type code {} is unknown", code);
  return static_cast<TokenType>(code);
}

// Lengths must be counts, and pointers must lay the sequences end to end over the whole .bin file.
std::int64_t checked_tokens(const Reader& file, std::int64_t header, const TokenIndex& index,
                            std::int64_t token_bytes) {
  const std::int64_t width = bytes_per_token(index.type), pointers = header + 4 * index.sequences;
  std::int64_t tokens = 0;
  for (std::int64_t i = 0; i < index.sequences; ++i) {
    const auto pointer = file.at<std::int64_t>(pointers + 8 * i);
    if (pointer != tokens * width) {
      file.refuse("sequence {} starts at byte {} where the lengths before it say {}", i, pointer,
                  tokens * width);
    }
    const auto length = file.at<std::int32_t>(header + 4 * i);
    if (length < 0) file.refuse("sequence {} has the negative length {}", i, length);
    tokens += length;
  }
  if (tokens * width != token_bytes) {
    file.refuse(
        "it describes {} bytes of tokens, but the .bin file beside it has {}; they don't belong together "
        "or one of them is cut short",
        tokens * width, token_bytes);
  }
  return tokens;
}

std::int64_t megatron_documents(const Reader& file, std::int64_t sequences) {
  const auto count = file.at<std::int64_t>(26);
  const std::int64_t start = megatron_header + 12 * sequences;
  std::int64_t before = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto boundary = file.at<std::int64_t>(start + 8 * i);
    if (i == 0 ? boundary != 0 : boundary < before) {
      file.refuse("document boundary {} is {} after {}", i, boundary, before);
    }
    before = boundary;
  }
  if (before != sequences) file.refuse("its documents end at sequence {} of {}", before, sequences);
  return count - 1;
}

// fairseq ends a document with an empty line, which is a sequence of one token.
std::int64_t fairseq_documents(const Reader& file, std::int64_t sequences) {
  std::int64_t documents = 0;
  bool inside = false;
  for (std::int64_t i = 0; i < sequences; ++i) {
    const bool separator = file.at<std::int32_t>(fairseq_header + 4 * i) == 1;
    documents += !separator && !inside ? 1 : 0;
    inside = !separator;
  }
  return documents;
}

}  // namespace

std::int64_t bytes_per_token(TokenType type) {
  switch (type) {
    case TokenType::unsigned_8:
    case TokenType::signed_8:
      return 1;
    case TokenType::signed_16:
    case TokenType::unsigned_16:
      return 2;
    case TokenType::signed_32:
    case TokenType::unsigned_32:
      return 4;
    case TokenType::signed_64:
    case TokenType::unsigned_64:
      return 8;
  }
  return 0;
}

const char* name_of(TokenType type) {
  constexpr const char* names[] = {"", "u8", "i8", "i16", "i32", "i64", "", "", "u16", "u32", "u64"};
  return names[static_cast<int>(type)];
}

TokenIndex read_token_index(std::span<const std::byte> bytes, std::int64_t token_bytes,
                            const std::string& path) {
  const Reader file{bytes, path};
  check_magic(file);
  const auto count = file.at<std::uint64_t>(18);
  if (count > static_cast<std::uint64_t>(file.size() - fairseq_header) / 12) {
    file.refuse("it claims {} sequences, more than its {} bytes can describe; it is cut short or damaged",
                count, file.size());
  }
  TokenIndex index;
  index.sequences = static_cast<std::int64_t>(count);
  const bool megatron = is_megatron(file, index.sequences);
  index.layout = megatron ? "megatron" : "fairseq";
  index.type = checked_type(file, megatron);
  index.tokens = checked_tokens(file, megatron ? megatron_header : fairseq_header, index, token_bytes);
  index.documents =
      megatron ? megatron_documents(file, index.sequences) : fairseq_documents(file, index.sequences);
  return index;
}

}  // namespace smlp
