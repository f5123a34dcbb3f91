#include "slurm/host_list.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "core/numbers.h"

namespace smlp {

namespace {

constexpr std::size_t most_names = 1'000'000;
constexpr std::size_t most_digits = 18;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool names_a_host(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '.';
}

std::optional<std::int64_t> number(std::string_view text) {
  return text.size() > most_digits ? std::nullopt : parse_whole_number(text);
}

std::vector<std::string_view> cut(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  for (;;) {
    const auto end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

// "1-3,07": what stands in a bracket.
std::optional<std::vector<std::string>> expand_bracket(std::string_view inside) {
  std::vector<std::string> numbers;
  for (const auto part : cut(inside, ',')) {
    const auto dash = part.find('-');
    const auto low = part.substr(0, dash), high = dash == std::string_view::npos ? low : part.substr(dash + 1);
    const auto first = number(low), last = number(high);
    if (!first || !last || *last < *first) return std::nullopt;
    if (static_cast<std::size_t>(*last - *first) >= most_names - std::min(numbers.size(), most_names)) return std::nullopt;
    for (auto i = *first; i <= *last; ++i) numbers.push_back(fmt::format("{:0{}}", i, low.size()));
  }
  return numbers;
}

// One name of the list, its brackets multiplied out.
std::optional<std::vector<std::string>> expand_name(std::string_view pattern) {
  std::vector<std::string> names = {""};
  while (!pattern.empty()) {
    std::vector<std::string> pieces;
    if (pattern.front() == '[') {
      const auto close = pattern.find(']');
      auto numbers = close == std::string_view::npos ? std::nullopt : expand_bracket(pattern.substr(1, close - 1));
      if (!numbers) return std::nullopt;
      pieces = std::move(*numbers);
      pattern.remove_prefix(close + 1);
    } else {
      const auto plain = pattern.substr(0, pattern.find('['));
      if (!std::all_of(plain.begin(), plain.end(), names_a_host)) return std::nullopt;
      pieces.emplace_back(plain);
      pattern.remove_prefix(plain.size());
    }
    if (names.size() * pieces.size() > most_names) return std::nullopt;
    std::vector<std::string> longer;
    for (const auto& name : names) {
      for (const auto& piece : pieces) longer.push_back(name + piece);
    }
    names = std::move(longer);
  }
  if (names.front().empty() || names.front().front() == '-') return std::nullopt;
  return names;
}

// A name in three: "rack2-n" "07" "-ib". No digits: all of it is the head.
struct Parts {
  std::string head, digits, tail;
  bool neighbours(const Parts& other) const { return head == other.head && tail == other.tail && !digits.empty(); }
};

Parts parts_of(const std::string& name) {
  auto end = name.size();
  while (end > 0 && !is_digit(name[end - 1])) --end;
  auto begin = end;
  while (begin > 0 && is_digit(name[begin - 1]) && end - begin < most_digits) --begin;
  return end == 0 ? Parts{name, "", ""} : Parts{name.substr(0, begin), name.substr(begin, end - begin), name.substr(end)};
}

}  // namespace

std::optional<std::vector<std::string>> expand_hosts(std::string_view list) {
  std::vector<std::string> names;
  while (!list.empty()) {
    std::size_t end = 0;
    for (bool inside = false; end < list.size() && (inside || list[end] != ','); ++end) {
      if (list[end] == '[') inside = true;
      if (list[end] == ']') inside = false;
    }
    const auto more = expand_name(list.substr(0, end));
    if (!more || names.size() + more->size() > most_names) return std::nullopt;
    names.insert(names.end(), more->begin(), more->end());
    if (end == list.size()) return names;
    list.remove_prefix(end + 1);
    if (list.empty()) return std::nullopt;  // a comma and nothing behind it
  }
  return names;
}

std::string compress_hosts(const std::vector<std::string>& names) {
  std::string list;
  for (std::size_t i = 0; i < names.size();) {
    const auto first = parts_of(names[i]);
    std::string inside;
    std::size_t count = 0;
    while (i < names.size() && parts_of(names[i]).neighbours(first)) {
      const auto low = parts_of(names[i]).digits;
      auto high = low;
      for (++i, ++count; i < names.size(); ++i, ++count) {
        const auto next = parts_of(names[i]);
        if (!next.neighbours(first) || next.digits != fmt::format("{:0{}}", *number(high) + 1, low.size())) break;
        high = next.digits;
      }
      inside += (inside.empty() ? "" : ",") + (low == high ? low : low + "-" + high);
    }
    if (count == 0) inside = first.digits, ++i;  // a name without a number
    list += (list.empty() ? "" : ",") + first.head + (count > 1 ? "[" + inside + "]" : inside) + first.tail;
  }
  return list;
}

}  // namespace smlp
