// Text of others (names, reasons, what a file holds) made fit for a terminal, a table or a picture.
#pragma once

#include <string>
#include <vector>

namespace smlp {

// One line of valid UTF-8 that moves no cursor, at most `widest` columns: what is more ends in "...".
std::string plain_line(const std::string& text, std::size_t widest);
// The same in up to `most` lines, folded at blanks; those after the first begin with `indent` blanks.
std::vector<std::string> plain_lines(const std::string& text, std::size_t widest, std::size_t most, std::size_t indent);
std::size_t columns_of(const std::string& line);
// A field of a CSV file, quoted where it must be (RFC 4180).
std::string csv_field(const std::string& text);
// Columns as wide as their widest cell; the first ones flush left, numbers flush right. The first row is the head.
std::string table_text(const std::vector<std::vector<std::string>>& rows, std::size_t left_columns);

}  // namespace smlp
