#include "data/hash_table_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/files.h"
#include "core/numbers.h"
#include "core/utf8.h"

namespace smlp {

std::vector<std::int32_t> read_hash_table(const std::filesystem::path& file, std::int64_t vocabulary, std::int64_t experts) {
  const auto refuse = [&](const std::string& why) {
    throw Error(ExitCode::configuration,
                fmt::format("routing.hash_table = \"{}\": {}; the file holds one expert for each of the {} token ids, in "
                            "order, apart by white space",
                            file.string(), why, vocabulary));
  };
  const auto kind = kind_of_path(file);
  if (kind == PathKind::absent) refuse("there is no such file");
  if (kind != PathKind::file) refuse("that is a folder or a device");
  const std::string text = read_text(file);
  std::vector<std::int32_t> table;
  const char *at = text.data(), *const end = at + text.size();
  const auto is_space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); };
  while (true) {
    while (at != end && is_space(*at)) ++at;
    if (at == end) break;
    const char* word_end = std::find_if(at, end, is_space);
    const auto expert = parse_whole_number({at, word_end});
    if (!expert || *expert >= experts) {
      refuse(fmt::format("entry {} is \"{}\" and no expert below {}", table.size(), shortened({at, word_end}, 40), experts));
    }
    table.push_back(static_cast<std::int32_t>(*expert));
    at = word_end;
    if (std::ssize(table) > vocabulary) refuse("it holds more entries than there are ids");
  }
  if (std::ssize(table) != vocabulary) refuse(fmt::format("it holds {} entries", table.size()));
  return table;
}

}  // namespace smlp
