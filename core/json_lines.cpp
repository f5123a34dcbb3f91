#include "core/json_lines.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "core/error.h"
#include "core/json_text.h"
#include "core/utf8.h"

namespace smlp {

namespace {

// A plain file open for reading: a pipe or a device would hold up the reader.
class PlainFile {
 public:
  PlainFile(const std::filesystem::path& path, int flags)
      : descriptor_(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | flags)) {
    struct stat facts {};
    if (descriptor_ < 0 || ::fstat(descriptor_, &facts) != 0 || !S_ISREG(facts.st_mode)) return;
    size_ = left_ = facts.st_size;
  }
  ~PlainFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  PlainFile(const PlainFile&) = delete;
  PlainFile& operator=(const PlainFile&) = delete;

  std::int64_t size() const { return size_; }  // -1: no plain file
  // Up to `bytes` more of what was there when it was opened; less where reading fails.
  std::string read(std::int64_t bytes) {
    std::string text(static_cast<std::size_t>(std::min(bytes, left_)), '\0');
    std::size_t got = 0;
    while (got < text.size()) {
      const auto n = ::read(descriptor_, text.data() + got, text.size() - got);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      got += static_cast<std::size_t>(n);
    }
    left_ -= static_cast<std::int64_t>(text.size());
    text.resize(got);
    return text;
  }
  void skip(std::int64_t bytes) { left_ = size_ - ::lseek(descriptor_, bytes, SEEK_SET); }

 private:
  int descriptor_;
  std::int64_t size_ = -1, left_ = 0;
};

constexpr std::int64_t block_bytes = 1 << 20;
constexpr int deepest = 100;
constexpr std::size_t longest_value = 40, longest_fault = 200;

bool too_deep(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size() && depth <= deepest; ++i) {
    const char c = text[i];
    if (c == '"') quoted = !quoted;
    else if (quoted) i += c == '\\' ? 1 : 0;
    else if (c == '[' || c == '{') ++depth;
    else if (c == ']' || c == '}') --depth;
  }
  return depth > deepest;
}

// Takes the finished lines off the front of `text`.
void take_lines(std::string& text, const LineTaker& take) {
  std::size_t start = 0;
  for (auto end = text.find('\n'); end != std::string::npos; end = text.find('\n', start)) {
    const auto line = parse_json(std::string_view(text).substr(start, end - start));
    if (line.is_object()) take(line);
    start = end + 1;
  }
  text.erase(0, start);
}

}  // namespace

void read_json_lines(const std::filesystem::path& path, const LineTaker& take, std::int64_t tail_bytes) {
  PlainFile file(path, 0);
  if (file.size() < 0) return;
  bool whole = true;  // what comes next is the beginning of a line
  if (tail_bytes > 0 && file.size() > tail_bytes) {
    file.skip(file.size() - tail_bytes);
    whole = false;
  }
  std::string rest;
  for (auto text = file.read(block_bytes); !text.empty(); text = file.read(block_bytes)) {
    rest += text;
    if (!whole) {
      const auto end = rest.find('\n');
      whole = end != std::string::npos;
      rest.erase(0, whole ? end + 1 : rest.size());
    }
    take_lines(rest, take);
  }
}

void JsonTail::pass_over_what_is_there() { offset_ = std::max<std::int64_t>(offset_, PlainFile(file_, 0).size()); }

void JsonTail::read(const LineTaker& take) {
  PlainFile file(file_, 0);
  if (file.size() <= offset_) return;
  file.skip(offset_);
  for (auto text = file.read(block_bytes); !text.empty(); text = file.read(block_bytes)) {
    offset_ += static_cast<std::int64_t>(text.size());
    rest_ += text;
    take_lines(rest_, take);
  }
}

nlohmann::json parse_json(std::string_view text) {
  if (too_deep(text)) return nlohmann::json(nlohmann::json::value_t::discarded);
  return nlohmann::json::parse(text, nullptr, false);
}

std::optional<std::string> read_plain_file(const std::filesystem::path& path, std::int64_t limit) {
  PlainFile file(path, O_NOFOLLOW);
  if (file.size() < 0 || file.size() > limit) return std::nullopt;
  return file.read(limit);
}

nlohmann::json read_json_file(const std::filesystem::path& path, std::int64_t limit) {
  return parse_json(read_plain_file(path, limit).value_or(""));
}

namespace {

[[noreturn]] void refuse(const nlohmann::json& value, const char* why) {
  throw Error(ExitCode::bad_data, fmt::format("{} {}", in_words(value), why));
}

bool is_whole(const nlohmann::json& value) {
  constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  return value.is_number_integer() && !(value.is_number_unsigned() && value.get<std::uint64_t>() > most);
}

}  // namespace

std::int64_t whole_number(const nlohmann::json& value) {
  if (!is_whole(value)) refuse(value, "is no whole number");
  return value.get<std::int64_t>();
}

std::vector<std::int64_t> whole_numbers(const nlohmann::json& list) {
  if (!list.is_array()) refuse(list, "is no list");
  std::vector<std::int64_t> numbers;
  for (const auto& value : list) numbers.push_back(whole_number(value));
  return numbers;
}

std::optional<std::int64_t> integer_in(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !is_whole(*found)) return std::nullopt;
  return found->get<std::int64_t>();
}

std::optional<double> number_in(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number()) return std::nullopt;
  return found->get<double>();
}

std::string in_words(const nlohmann::json& value) {
  const bool nested = std::any_of(value.begin(), value.end(), [](const auto& member) { return member.is_structured(); });
  if (nested) return value.is_array() ? "an array" : "an object";
  return shortened(json_text(value), longest_value);
}

std::string json_fault(const nlohmann::json::exception& error) {
  const std::string words = error.what();
  const auto end = words.find("] ");
  const bool numbered = words.starts_with("[json.exception.") && end != std::string::npos;
  return shortened(numbered ? words.substr(end + 2) : words, longest_fault);
}

std::string text_in(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace smlp
