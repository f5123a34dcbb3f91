#include "data/word_splitter.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "core/error.h"
#include "core/utf8.h"

namespace smlp {

namespace {

// What Unicode 15 and 16 added to the letters and numbers of Unicode 14, which PCRE2 10.42 has.
constexpr std::string_view newer_letters =
    R"(\x{1c89}\x{1c8a}\x{a7cb}-\x{a7cd}\x{a7da}-\x{a7dc}\x{105c0}-\x{105f3}\x{10d4a}-\x{10d65}\x{10d6f}-\x{10d85})"
    R"(\x{10ec2}-\x{10ec4}\x{1123f}\x{11240}\x{11380}-\x{11389}\x{1138b}\x{1138e}\x{11390}-\x{113b5}\x{113b7})"
    R"(\x{113d1}\x{113d3}\x{11bc0}-\x{11be0}\x{11f02}\x{11f04}-\x{11f10}\x{11f12}-\x{11f33}\x{1342f})"
    R"(\x{13441}-\x{13446}\x{13460}-\x{143fa}\x{16100}-\x{1611d}\x{16d40}-\x{16d6c}\x{18cff}\x{1b132}\x{1b155})"
    R"(\x{1df25}-\x{1df2a}\x{1e030}-\x{1e06d}\x{1e4d0}-\x{1e4eb}\x{1e5d0}-\x{1e5ed}\x{1e5f0}\x{2b739})"
    R"(\x{2ebf0}-\x{2ee5d}\x{31350}-\x{323af})";
constexpr std::string_view newer_numbers =
    R"(\x{10d40}-\x{10d49}\x{116d0}-\x{116e3}\x{11bf0}-\x{11bf9}\x{11f50}-\x{11f59}\x{16130}-\x{16139})"
    R"(\x{16d70}-\x{16d79}\x{1ccf0}-\x{1ccf9}\x{1d2c0}-\x{1d2d3}\x{1e4f0}-\x{1e4f9}\x{1e5f1}-\x{1e5fa})";
// White_Space; PCRE2's own \s has U+180E too.
constexpr std::string_view space =
    R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

std::string pattern_text() {
  const auto letters = fmt::format(R"(a-zA-Z\p{{L}}{})", newer_letters);
  const auto numbers = fmt::format(R"(0-9\p{{N}}{})", newer_numbers);
  return fmt::format(R"('s|'t|'re|'ve|'m|'ll|'d| ?[{0}]+| ?[{1}]+| ?[^{2}{0}{1}]+|[{2}]+(?![^{2}])|[{2}]+)",
                     letters, numbers, space);
}

bool is_ascii_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_ascii_alphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}
bool is_ascii_punctuation(char c) { return c > ' ' && c < 127 && !is_ascii_alphanumeric(c); }

bool ends_with_space(std::string_view text) {
  if (is_ascii_space(text.back())) return true;
  for (const std::string_view wide : {"\xc2\x85", "\xc2\xa0", "\xe1\x9a\x80", "\xe2\x80\xa8", "\xe2\x80\xa9",
                                      "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"}) {
    if (text.ends_with(wide)) return true;
  }
  const auto last = static_cast<unsigned char>(text.back());
  return last >= 0x80 && last <= 0x8a && text.substr(0, text.size() - 1).ends_with("\xe2\x80");
}

}  // namespace

struct WordSplitter::Pattern {
  Pattern() {
    const auto text = pattern_text();
    int code = 0;
    std::size_t place = 0;
    compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &code, &place, nullptr);
    expect(compiled != nullptr, "GPT-2's pattern did not compile");
    pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE);  // where the system forbids it, PCRE2 interprets
    match = pcre2_match_data_create(1, nullptr);
    expect(match != nullptr, "PCRE2 gave no room for a match");
  }
  ~Pattern() {
    pcre2_match_data_free(match);
    pcre2_code_free(compiled);
  }
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;

  pcre2_code* compiled = nullptr;
  pcre2_match_data* match = nullptr;
};

WordSplitter::WordSplitter() : pattern_(std::make_unique<Pattern>()) {}
WordSplitter::~WordSplitter() = default;

void WordSplitter::start(std::string_view text) {
  at_ = valid_end_ = text.data();
  end_ = text.data() + text.size();
}

bool WordSplitter::next(std::string_view& word) {
  if (at_ == end_) return false;
  if (at_ == valid_end_) {
    const auto valid = valid_prefix({at_, static_cast<std::size_t>(end_ - at_)});
    if (valid == 0) {
      word = {at_, 1};
      valid_end_ = ++at_;
      return true;
    }
    valid_end_ = at_ + valid;
  }
  const int found = pcre2_match(pattern_->compiled, reinterpret_cast<PCRE2_SPTR>(at_),
                                static_cast<std::size_t>(valid_end_ - at_), 0, PCRE2_NO_UTF_CHECK,
                                pattern_->match, nullptr);
  if (found <= 0) {
    throw Error(ExitCode::fault, fmt::format("GPT-2's pattern failed on a text with PCRE2's code {}", found));
  }
  word = {at_, pcre2_get_ovector_pointer(pattern_->match)[1]};
  at_ += word.size();
  return true;
}

std::size_t WordSplitter::safe_cut(std::string_view text) {
  for (std::size_t p = text.empty() ? 0 : text.size() - 1; p > 0; --p) {
    const char before = text[p - 1], after = text[p];
    if (is_ascii_space(after) ? !ends_with_space(text.substr(0, p))
                              : is_ascii_punctuation(after) && is_ascii_alphanumeric(before)) {
      return p;
    }
  }
  return 0;
}

std::size_t valid_prefix(std::string_view text) {
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at < end) {
    std::uint64_t eight = 0;
    if (end - at >= 8 && (std::memcpy(&eight, at, 8), (eight & 0x8080808080808080) == 0)) {
      at += 8;
      continue;
    }
    const auto length = character_bytes({at, end});
    if (length == 0) break;
    at += length;
  }
  return static_cast<std::size_t>(at - text.data());
}

}  // namespace smlp
