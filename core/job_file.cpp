#include "core/job_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <optional>
#include <set>
#include <sstream>
#include <toml++/toml.h>
#include <utility>

#include "core/digest.h"
#include "core/error.h"
#include "core/files.h"
#include "core/job_keys.h"
#include "core/utf8.h"

namespace smlp {

namespace {

constexpr std::size_t longest_shown = 60;

// A value as it would stand in a file, on one line.
std::string in_words(const toml::node& node) {
  std::ostringstream out;
  node.visit([&](const auto& value) {
    using T = std::decay_t<decltype(value)>;
    if constexpr (toml::is_table<T>) {
      out << "{…}";
    } else if constexpr (toml::is_array<T>) {
      const char* before = "[";
      for (const auto& element : value) out << std::exchange(before, ", ") << in_words(element);
      out << (value.empty() ? "[]" : "]");
    } else if constexpr (toml::is_string<T>) {
      if (on_one_line(*value) == *value) out << value;
      else out << toml_quoted(*value);
    } else if constexpr (toml::is_floating_point<T>) {
      auto number = value.get();
      out << toml_text(&number);
    } else {
      out << value;
    }
  });
  return out.str();
}

// The same for sentences: cut where it is long.
std::string shown(const toml::node& node) { return shortened(in_words(node), longest_shown); }

const char* kind_of(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::string: return "a string";
    case toml::node_type::integer: return "an integer";
    case toml::node_type::floating_point: return "a number with a fraction";
    case toml::node_type::boolean: return "a boolean";
    case toml::node_type::array: return "an array";
    case toml::node_type::table: return "a section";
    default: return "a date or time";
  }
}

std::string wanted(const JobKey& key) {
  if (key.info.type == "integer") return "a whole number is needed";
  if (key.info.type == "number") return "a number is needed";
  if (key.info.type == "boolean") return "true or false is needed";
  if (key.info.type == "string") return "a string in quotes is needed";
  return key.info.type == "strings" ? "an array of strings is needed, as in [\"one\", \"two\"]"
                                    : "an array of numbers is needed, as in [0.9, 0.98]";
}

// "= [1] holds an integer", "= true is a boolean", "is a section": of a value whose type does not fit.
std::string what_it_is(const toml::node& node, const JobKey& key) {
  if (node.is_table()) return "is a section";
  const auto* array = node.as_array();
  if (!array || (key.info.type != "strings" && key.info.type != "numbers")) {
    return fmt::format("= {} is {}", shown(node), kind_of(node));
  }
  const auto fits = [&](const toml::node& element) {
    return key.info.type == "strings" ? element.is_string() : element.is_number();
  };
  const auto wrong = std::find_if_not(array->begin(), array->end(), fits);
  return fmt::format("= {} holds {}", shown(node), wrong == array->end() ? "something else" : kind_of(*wrong));
}

// Takes the value out of a node where the type fits; integers serve as numbers.
struct Taker {
  const toml::node& node;

  bool operator()(std::int64_t* out) const { return take(node.value_exact<std::int64_t>(), out); }
  bool operator()(bool* out) const { return take(node.value_exact<bool>(), out); }
  bool operator()(std::string* out) const { return take(node.value_exact<std::string>(), out); }
  bool operator()(double* out) const { return take(number(node), out); }
  bool operator()(std::vector<std::string>* out) const {
    return take_all(out, [](const toml::node& n) { return n.value_exact<std::string>(); });
  }
  bool operator()(std::vector<double>* out) const { return take_all(out, number); }

  static std::optional<double> number(const toml::node& n) {
    if (const auto whole = n.value_exact<std::int64_t>()) return static_cast<double>(*whole);
    return n.value_exact<double>();
  }
  template <class T>
  static bool take(std::optional<T> value, T* out) {
    if (value) *out = std::move(*value);
    return value.has_value();
  }
  template <class T, class Read>
  bool take_all(std::vector<T>* out, Read read) const {
    const auto* array = node.as_array();
    if (!array) return false;
    std::vector<T> values;
    for (const auto& element : *array) {
      auto value = read(element);
      if (!value) return false;
      values.push_back(std::move(*value));
    }
    *out = std::move(values);
    return true;
  }
};

// `above`: the value is; a bound too far away to matter is not told otherwise.
std::string interval(const Allowed& allowed, bool whole, bool above) {
  const auto text = [&](double bound) {
    return whole ? fmt::format("{}", static_cast<std::int64_t>(bound)) : fmt::format("{}", bound);
  };
  const auto low = fmt::format("{} {}", allowed.above_least ? "more than" : "at least", text(allowed.least));
  if (allowed.most >= 1e15 && !above) return low;
  return fmt::format("{} and {} {}", low, allowed.below_most ? "less than" : "at most", text(allowed.most));
}

// What is wrong with the value in the field, or "".
std::string value_problem(const JobKey& key, const JobField& field) {
  const auto& allowed = key.allowed;
  const auto outside = [&](double v) {
    return !std::isfinite(v) || v < allowed.least || (allowed.above_least && v == allowed.least) ||
           v > allowed.most || (allowed.below_most && v == allowed.most);
  };
  const auto range = [&](double v, bool whole) {
    return fmt::format("{}{}", std::isfinite(v) ? "" : "finite, ", interval(allowed, whole, v > allowed.most));
  };
  if (const auto* whole = std::get_if<std::int64_t*>(&field)) {
    const auto value = static_cast<double>(**whole);
    return outside(value) ? fmt::format("is out of range: it must be {}", range(value, true)) : "";
  }
  if (const auto* number = std::get_if<double*>(&field)) {
    return outside(**number) ? fmt::format("is out of range: it must be {}", range(**number, false)) : "";
  }
  if (const auto* numbers = std::get_if<std::vector<double>*>(&field)) {
    const auto bad = std::find_if((*numbers)->begin(), (*numbers)->end(), outside);
    return bad != (*numbers)->end() ? fmt::format("is out of range: each must be {}", range(*bad, false)) : "";
  }
  const auto* word = std::get_if<std::string*>(&field);
  if (!word || allowed.words.empty()) return "";
  const auto& known = allowed.words;
  if (std::find(known.begin(), known.end(), **word) != known.end()) return "";
  const auto near = nearest_name(**word, known);
  return fmt::format("is not known: {}choose {}", near.empty() ? "" : fmt::format("did you mean \"{}\"? ", near),
                     listed(allowed.words));
}

std::string unknown_key_hint(const std::string& key) {
  const auto dot = key.find('.');
  const auto section = key.substr(0, dot == std::string::npos ? 0 : dot + 1);
  const auto member = key.substr(section.size());
  std::vector<std::string> siblings, all;
  for (const auto& known : job_key_table()) {
    all.push_back(known.info.key);
    if (known.section() == section) siblings.push_back(known.member());
    if (known.member() == member && known.section() != section) {
      return fmt::format("did you mean {}?", known.info.key);
    }
  }
  auto near = nearest_name(member, siblings);
  if (!near.empty()) return fmt::format("did you mean {}{}?", section, near);
  near = nearest_name(key, all);
  return near.empty() ? "`smlp config keys` lists them all" : fmt::format("did you mean {}?", near);
}

// Walks a parsed document, fills the config, and remembers where each value stood and all that is wrong.
class Reader {
 public:
  explicit Reader(LoadedJob& job) : job_(job) {
    for (const auto& key : job_key_table()) job_.origins.emplace_back(key.info.key, "default");
  }

  // `origin`: of every value when it is not a line of the file.
  void read(const toml::table& document, const std::string& origin = {}) {
    for (const auto& [name, node] : document) {
      const std::string section(name.str());
      const auto* table = node.as_table();
      if (section.find('.') != std::string::npos) {  // TOML takes a name in quotes as one name
        problem(place(node, origin), fmt::format("there is no key \"{}\"; leave the quotes out", section));
      } else if (!table) {
        read_value(section, node, origin);
      } else if (!is_section(section)) {
        problem(place(node, origin), fmt::format("there is no section [{}]; {}", section, section_hint(section)));
      } else {
        for (const auto& [member, value] : *table) read_value(section + "." + std::string(member.str()), value, origin);
      }
    }
  }
  void problem(const std::string& place, const std::string& sentence) {
    problems_.push_back(on_one_line(fmt::format("{}: {}", place, sentence)));
  }
  void finish() const {
    if (problems_.empty()) return;
    throw Error(ExitCode::configuration, fmt::format("{}", fmt::join(problems_, "\n")));
  }

 private:
  static std::vector<std::string> sections() {
    std::vector<std::string> names;
    for (const auto& key : job_key_table()) {
      const auto section = key.section();
      if (!section.empty() && (names.empty() || names.back() + "." != section)) {
        names.push_back(section.substr(0, section.size() - 1));
      }
    }
    return names;
  }
  static bool is_section(const std::string& name) {
    const auto names = sections();
    return std::find(names.begin(), names.end(), name) != names.end();
  }
  static std::string section_hint(const std::string& name) {
    const auto near = nearest_name(name, sections());
    return near.empty() ? fmt::format("there are {}", listed(sections(), "and")) : fmt::format("did you mean [{}]?", near);
  }
  std::string place(const toml::node& node, const std::string& origin) const {
    return origin.empty() ? fmt::format("{}:{}", job_.file.string(), node.source().begin.line) : origin;
  }

  void read_value(const std::string& name, const toml::node& node, const std::string& origin) {
    const auto where = place(node, origin);
    const auto* key = find_job_key(name);
    if (!key && is_section(name)) {
      problem(where, fmt::format("[{}] is a section, not a key; write the keys below it", name));
      return;
    }
    if (!key) {
      problem(where, fmt::format("there is no key {}; {}", name, unknown_key_hint(name)));
      return;
    }
    const auto field = key->field(job_.config);
    if (!std::visit(Taker{node}, field)) {
      problem(where, fmt::format("{} {}, but {}", name, what_it_is(node, *key), wanted(*key)));
      return;
    }
    if (const auto wrong = value_problem(*key, field); !wrong.empty()) {
      problem(where, fmt::format("{} = {} {}", name, shown(node), wrong));
    }
    for (auto& [known, from] : job_.origins) {
      if (known == name) from = where;
    }
  }

  LoadedJob& job_;
  std::vector<std::string> problems_;
};

// Behind the string that begins at `start`.
std::size_t end_of_string(std::string_view text, std::size_t start) {
  const char quote = text[start];
  const std::string three(3, quote);
  const bool long_one = text.substr(start).starts_with(three);
  for (auto i = start + (long_one ? 3 : 1); i < text.size(); ++i) {
    if (text[i] == '\\' && quote == '"') ++i;
    else if (!long_one && text[i] == quote) return i + 1;
    else if (!long_one && text[i] == '\n') return i;
    else if (long_one && text.substr(i).starts_with(three)) return std::min(text.find_first_not_of(quote, i), text.size());
  }
  return text.size();
}

// The parser follows the parts of a name by recursion: one of very many would overflow the stack.
constexpr int most_name_parts = 16;

// Of the first name that has more parts; 0: there is none.
std::int64_t line_of_long_name(std::string_view text) {
  std::int64_t line = 1;
  int parts = 1;
  for (std::size_t i = 0; i < text.size();) {
    auto next = i + 1;
    if (text[i] == '"' || text[i] == '\'') next = end_of_string(text, i);
    else if (text[i] == '#') next = std::min(text.find('\n', i), text.size());
    else if (text[i] == '.') ++parts;
    else if (std::string_view("=,[]{}\n").find(text[i]) != std::string_view::npos) parts = 1;
    if (parts > most_name_parts) return line;
    line += std::count(text.begin() + static_cast<std::ptrdiff_t>(i), text.begin() + static_cast<std::ptrdiff_t>(next), '\n');
    i = next;
  }
  return 0;
}

std::string long_name() {
  return fmt::format("a name of more than {} parts, where a key has two: section.key", most_name_parts);
}

toml::table parse(const std::string& text, const std::string& file) {
  if (const auto line = line_of_long_name(text); line > 0) {
    throw Error(ExitCode::configuration, fmt::format("{}:{}: {}", file, line, long_name()));
  }
  try {
    return toml::parse(text, file);
  } catch (const toml::parse_error& error) {
    throw Error(ExitCode::configuration, fmt::format("{}:{}: this is not TOML: {}", file,
                                                     error.source().begin.line, error.description()));
  }
}

bool is_bare_word(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-'; }) &&
         !text.empty() && std::isalpha(static_cast<unsigned char>(text.front()));
}

std::string without_blanks_around(const std::string& text) {
  constexpr const char* blanks = " \t\r\n";
  const auto first = text.find_first_not_of(blanks);
  return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

// "a.b=v", with blanks around key and value or without: v is TOML; what is no TOML, or meant for a string and not quoted, is a
// string as it stands.
toml::table parse_override(const std::string& text) {
  const auto words = on_one_line(text);
  const auto equals = text.find('=');
  const auto key = without_blanks_around(text.substr(0, equals));
  if (equals == std::string::npos || key.empty() || key.starts_with('.') || key.ends_with('.')) {
    throw Error(ExitCode::usage, fmt::format("--set wants section.key=value, not '{}'", words));
  }
  const auto value = without_blanks_around(text.substr(equals + 1));
  const auto* known = find_job_key(key);
  const bool quoted = value.starts_with('"') || value.starts_with('\'');
  toml::table leaf;
  std::optional<toml::table> parsed;
  if (quoted || !known || known->info.type != "string") {
    if (line_of_long_name(value) > 0) {
      throw Error(ExitCode::configuration,
                  fmt::format("--set {}: the value has {}", shortened(words, longest_shown), long_name()));
    }
    std::string reason = "it is more than one value";
    try {
      parsed = toml::parse("value = " + value);
    } catch (const toml::parse_error& error) {
      reason = error.description();
    }
    const bool one_value = parsed && parsed->size() == 1;
    if (!one_value && known && known->info.type != "string" && !is_bare_word(value)) {
      throw Error(ExitCode::configuration,
                  fmt::format("--set {}: the value is not TOML: {}; {}", words, reason, wanted(*known)));
    }
  }
  if (!parsed || parsed->size() != 1) {
    try {
      parsed = toml::parse("value = " + toml_quoted(value));
    } catch (const toml::parse_error& error) {
      throw Error(ExitCode::configuration, fmt::format("--set {}: {}", words, error.description()));
    }
  }
  // Built by hand: a key that is no TOML key must reach the reader, which knows the nearest one.
  const auto dot = key.find('.');
  toml::table document;
  if (dot == std::string::npos) {
    document.insert(key, *parsed->get("value"));
  } else {
    leaf.insert(key.substr(dot + 1), *parsed->get("value"));
    document.insert(key.substr(0, dot), std::move(leaf));
  }
  return document;
}

}  // namespace

const std::vector<KeyInfo>& job_keys() {
  static const auto infos = [] {
    std::vector<KeyInfo> list;
    for (const auto& key : job_key_table()) list.push_back(key.info);
    return list;
  }();
  return infos;
}

LoadedJob load_job(const std::filesystem::path& file, const std::vector<std::string>& overrides) {
  if (std::filesystem::is_directory(file)) {
    throw Error(ExitCode::configuration, fmt::format("{} is a folder; a job file in TOML is needed", file.string()));
  }
  return parse_job(read_text(file), file, overrides);
}

LoadedJob parse_job(const std::string& text, const std::filesystem::path& file,
                    const std::vector<std::string>& overrides) {
  LoadedJob job;
  job.file = file;
  const auto document = parse(text, file.string());
  Reader reader(job);
  reader.read(document);
  for (const auto& override : overrides) reader.read(parse_override(override), "--set " + override);
  reader.finish();
  return job;
}

std::string origin_of(const LoadedJob& job, const std::string& key) {
  for (const auto& [known, from] : job.origins) {
    if (known == key) return from;
  }
  return "default";
}

void set_origin(LoadedJob& job, const std::string& key, const std::string& origin) {
  for (auto& [known, from] : job.origins) {
    if (known == key) from = origin;
  }
}

std::string to_toml(const JobConfig& config) {
  auto copy = config;
  std::string text, section;
  for (const auto& key : job_key_table()) {
    if (key.section() != section) {
      section = key.section();
      text += fmt::format("\n[{}]\n", section.substr(0, section.size() - 1));
    }
    text += fmt::format("{} = {}\n", key.member(), toml_text(key.field(copy)));
  }
  return text;
}

std::string value_of(const JobConfig& config, const std::string& name) {
  const auto* key = find_job_key(name);
  if (!key) {
    throw Error(ExitCode::configuration, fmt::format("there is no key {}; {}", name, unknown_key_hint(name)));
  }
  auto copy = config;
  return toml_text(key->field(copy));
}

std::string identity_toml(const JobConfig& config) {
  std::string text;
  for (const auto& key : job_key_table()) {
    if (!key.info.may_change) text += fmt::format("{} = {}\n", key.info.key, value_of(config, key.info.key));
  }
  return text;
}

std::string fingerprint(const JobConfig& config) { return digest_of(identity_toml(config)); }

std::vector<std::string> changed_keys(const JobConfig& before, const JobConfig& now) {
  constexpr std::string_view group_key = "routing.group_sequences";  // of no matter to a model that routes nothing
  std::vector<std::string> changed;
  for (const auto& key : job_key_table()) {
    if (key.info.may_change || value_of(before, key.info.key) == value_of(now, key.info.key)) continue;
    if (key.info.key == group_key && before.model.sparse_blocks == 0 && now.model.sparse_blocks == 0) continue;
    changed.push_back(key.info.key);
  }
  return changed;
}

}  // namespace smlp
