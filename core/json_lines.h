// The *.jsonl files of a run directory, read while others append to them, after crashes and by any user: what is no
// JSON object (a half-written line, damage) is passed over, a file that is absent or no plain file has no lines.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace smlp {

using LineTaker = std::function<void(const nlohmann::json&)>;

// Calls `take` for each line in order; with `tail_bytes`, for those that begin within so many bytes of the end.
void read_json_lines(const std::filesystem::path& file, const LineTaker& take, std::int64_t tail_bytes = 0);

// One of these files as it grows: each reading takes the lines that were finished since the one before.
class JsonTail {
 public:
  explicit JsonTail(std::filesystem::path file) : file_(std::move(file)) {}
  void pass_over_what_is_there();
  void read(const LineTaker& take);

 private:
  std::filesystem::path file_;
  std::int64_t offset_ = 0;
  std::string rest_;  // an unfinished line
};

// Discarded where it is no JSON, or nested deeper than anything of ours: copying or writing that would overflow the stack.
nlohmann::json parse_json(std::string_view text);

// What a plain file of at most `limit` bytes holds; nullopt for anything else. Follows no link and never waits.
std::optional<std::string> read_plain_file(const std::filesystem::path& file, std::int64_t limit);
// The same read as one JSON value; discarded where it is none.
nlohmann::json read_json_file(const std::filesystem::path& file, std::int64_t limit);

// The number, where it is a whole one of 64 bits, and nothing that a conversion would make one (1.5, 1e30, true). Throws
// Error(bad_data): "1.5 is no whole number".
std::int64_t whole_number(const nlohmann::json& value);
std::vector<std::int64_t> whole_numbers(const nlohmann::json& list);

// A member of the type asked for, or nullopt.
std::optional<std::int64_t> integer_in(const nlohmann::json& object, const char* key);
std::optional<double> number_in(const nlohmann::json& object, const char* key);
std::string text_in(const nlohmann::json& object, const char* key);  // "" where there is none

// A value for a sentence, on one line and short: 1.5, "text", [1,2], an array, an object.
std::string in_words(const nlohmann::json& value);

// What a parser found, without the library's own numbering before it.
std::string json_fault(const nlohmann::json::exception& error);

// The other way: what is not known is null.
template <class T>
nlohmann::json or_null(const std::optional<T>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json();
}

}  // namespace smlp
