#include "commands/plain_text.h"

#include <algorithm>
#include <string_view>

#include "core/utf8.h"

namespace smlp {

namespace {

bool is_control(const std::string& text, std::size_t at) {
  const auto byte = static_cast<unsigned char>(text[at]);
  const bool second_set = byte == 0xC2 && static_cast<unsigned char>(text[at + 1]) < 0xA0;  // U+0080 to U+009F
  return byte < 0x20 || byte == 0x7F || second_set;
}

std::string blanks_up_to(const std::string& cell, std::size_t width) { return std::string(width - columns_of(cell), ' '); }

}  // namespace

std::string plain_line(const std::string& text, std::size_t widest) {
  std::vector<std::string> characters;
  for (std::size_t at = 0; at < text.size() && characters.size() <= widest;) {
    const auto bytes = character_bytes(std::string_view(text).substr(at));
    characters.push_back(bytes == 0 ? "?" : is_control(text, at) ? " " : text.substr(at, bytes));
    at += std::max<std::size_t>(bytes, 1);
  }
  if (characters.size() > widest) {
    characters.resize(widest);
    std::fill(characters.end() - static_cast<std::ptrdiff_t>(std::min<std::size_t>(3, widest)), characters.end(), ".");
  }
  std::string line;
  for (const auto& character : characters) line += character;
  return line;
}

std::vector<std::string> plain_lines(const std::string& text, std::size_t widest, std::size_t most, std::size_t indent) {
  std::vector<std::string> lines;
  auto rest = plain_line(text, text.size());
  while (lines.size() + 1 < most && columns_of(rest) > widest) {
    auto fitting = plain_line(rest, widest);
    fitting.resize(fitting.size() - 3);  // the dots
    const auto blank = fitting.find_last_of(' ');
    if (blank == std::string::npos || blank <= indent) break;
    lines.push_back(rest.substr(0, blank));
    rest = std::string(indent, ' ') + rest.substr(blank + 1);
  }
  lines.push_back(plain_line(rest, widest));
  return lines;
}

std::size_t columns_of(const std::string& line) {
  return static_cast<std::size_t>(
      std::count_if(line.begin(), line.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + '"';
}

std::string table_text(const std::vector<std::vector<std::string>>& rows, std::size_t left_columns) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], columns_of(row[i]));
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i > 0) line += "  ";
      line += i < left_columns ? row[i] + blanks_up_to(row[i], widths[i]) : blanks_up_to(row[i], widths[i]) + row[i];
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

}  // namespace smlp
