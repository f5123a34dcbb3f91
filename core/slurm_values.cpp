#include "core/slurm_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <regex>

#include "core/numbers.h"

namespace smlp {

namespace {

std::string shown(char c) {
  const auto code = static_cast<unsigned>(static_cast<unsigned char>(c));
  if (c == '\n') return "a line break";
  if (c == '\t') return "a tab";
  if (c == ' ') return "a blank";
  return code < 0x20 || code >= 0x7F ? fmt::format("the byte 0x{:02X}", code) : fmt::format("{}", c);
}

// What a name of SLURM may hold without being read as something else.
bool is_plain(char c) {
  return c > 0x20 && c < 0x7F && std::string_view("\"'\\#`$;").find(c) == std::string_view::npos;
}

std::optional<std::vector<double>> numbers(const std::string& text) {
  std::vector<double> values;
  std::string digits;
  for (const char c : text + ":") {
    if (c != ':') {
      digits += c;
      continue;
    }
    if (digits.empty() || digits.size() > 9 || digits.find_first_not_of("0123456789") != std::string::npos) return std::nullopt;
    values.push_back(std::stod(digits));
    digits.clear();
  }
  return values;
}

// "--reservation=x", "-x"
bool is_option(const std::string& text) {
  const auto letter = text.find_first_not_of('-');
  return (letter == 1 || letter == 2) && std::isalpha(static_cast<unsigned char>(text[letter]));
}

// The words of an option as sbatch splits its #SBATCH line: quotes and backslashes are taken off, a # ends it.
std::vector<std::string> words_of(const std::string& option) {
  std::vector<std::string> words;
  bool inside = false;
  char quote = 0;
  const auto add = [&](char c) {
    if (!inside) words.emplace_back();
    inside = true;
    words.back() += c;
  };
  for (std::size_t i = 0; i < option.size(); ++i) {
    const char c = option[i];
    const bool blank = c == ' ' || c == '\t';
    if (c == '\\' && i + 1 < option.size()) add(option[++i]);
    else if (quote != 0 && c == quote) quote = 0;
    else if (quote == 0 && (c == '"' || c == '\'')) quote = c;
    else if (quote == 0 && c == '#') break;
    else if (quote == 0 && blank) inside = false;
    else add(c);
  }
  return words;
}

// An option that slurm.extra may not hold, and the rest of a sentence: what is wrong with it, what to do.
struct Barred {
  std::string_view whole;
  char letter;
  std::string_view why;
};

constexpr std::string_view submits_nothing = "with which sbatch submits no job; leave it out";
constexpr std::array barred = {
    Barred{"--array", 'a', "which has a key of its own that smlp reckons with; use slurm.array"},
    Barred{"--dependency", 'd', "which has a key of its own that smlp reckons with; use slurm.dependency"},
    Barred{"--nodes", 'N', "which has a key of its own that smlp reckons with; use slurm.nodes"},
    Barred{"--ntasks", 'n', "which has a key of its own that smlp reckons with; use slurm.nodes"},
    Barred{"--ntasks-per-node", 0, "which has a key of its own that smlp reckons with; use slurm.tasks_per_node"},
    Barred{"--signal", 0, "which has a key of its own that smlp reckons with; use slurm.signal_seconds"},
    Barred{"--time", 't', "which has a key of its own that smlp reckons with; use slurm.time_limit"},
    Barred{"--wrap", 0, "and the script is smlp's own; use slurm.setup"},
    Barred{"--wait", 'W', "with which sbatch waits for the end of the job; leave it out and see `smlp status RUN --watch`"},
    Barred{"--test-only", 0, submits_nothing},
    Barred{"--help", 'h', submits_nothing},
    Barred{"--usage", 'u', submits_nothing},
    Barred{"--version", 'V', submits_nothing}};

// sbatch takes the beginning of a long option for the whole; no other option of it is the beginning of one of ours.
std::string_view why_long_barred(const std::string& word) {
  const auto name = word.substr(0, word.find('='));
  constexpr std::size_t dashes = 2;
  if (name.size() == dashes) return "";
  const auto* found = std::find_if(barred.begin(), barred.end(), [&](const Barred& b) { return b.whole == name; });
  if (found == barred.end()) {
    found = std::find_if(barred.begin(), barred.end(), [&](const Barred& b) { return b.whole.starts_with(name); });
  }
  return found == barred.end() ? "" : found->why;
}

// "-HN3" is -H and -N 3: letters that take no value may stand before others.
std::string_view why_letters_barred(const std::string& word) {
  constexpr std::string_view without_value = "HkOQsv";
  for (const char letter : word.substr(1)) {
    const auto* found = std::find_if(barred.begin(), barred.end(), [&](const Barred& b) { return b.letter == letter; });
    if (found != barred.end()) return found->why;
    if (without_value.find(letter) == std::string_view::npos) return "";
  }
  return "";
}

// "holds '…', which …" for what an entry of slurm.extra may not hold; "": nothing.
std::string barred_in(const std::string& option) {
  for (const auto& word : words_of(option)) {
    if (!word.starts_with('-')) continue;
    const auto why = word.starts_with("--") ? why_long_barred(word) : why_letters_barred(word);
    if (!why.empty()) return fmt::format("holds '{}', {}", option, why);
  }
  return "";
}

// In seconds; none: not a time.
std::optional<double> parse_time(const std::string& text) {
  const auto dash = text.find('-');
  const auto days = dash == std::string::npos ? std::optional(std::vector<double>{0}) : numbers(text.substr(0, dash));
  const auto clock = numbers(text.substr(dash == std::string::npos ? 0 : dash + 1));
  if (!days || !clock || days->size() != 1 || clock->size() > 3) return std::nullopt;
  constexpr double minute = 60, hour = 3600, day = 86400;
  const auto at = [&](std::size_t i) { return i < clock->size() ? (*clock)[i] : 0; };
  if (dash != std::string::npos) return days->front() * day + at(0) * hour + at(1) * minute + at(2);
  if (clock->size() == 3) return at(0) * hour + at(1) * minute + at(2);
  return at(0) * minute + at(1);
}

bool means_no_limit(std::string_view text) { return text.empty() || text == "UNLIMITED" || text == "INFINITE"; }

}  // namespace

std::size_t find_control(std::string_view text) {
  const auto found = std::find_if(text.begin(), text.end(), [](char c) {
    const auto code = static_cast<unsigned char>(c);
    return (code < 0x20 && c != '\t') || code == 0x7F;
  });
  return found == text.end() ? std::string_view::npos : static_cast<std::size_t>(found - text.begin());
}

std::optional<double> slurm_seconds(std::string_view time_limit) {
  if (means_no_limit(time_limit)) return std::nullopt;
  const auto seconds = parse_time(std::string(time_limit));
  return seconds && *seconds > 0 ? seconds : std::nullopt;
}

std::optional<double> slurm_bytes(std::string_view memory) {
  const auto digits = memory.substr(0, memory.find_first_not_of("0123456789"));
  const auto number = parse_whole_number(digits);
  if (!number || *number == 0) return std::nullopt;
  const auto unit = memory.substr(digits.size());
  const auto thousands = unit.empty() ? 1 : std::string_view("KMGTkmgt").find(unit);
  if (unit.size() > 1 || thousands == std::string_view::npos) return std::nullopt;
  return std::ldexp(static_cast<double>(*number), 10 * (1 + static_cast<int>(thousands % 4)));
}

std::vector<std::pair<std::string, std::string>> slurm_problems(const JobConfig::Slurm& slurm) {
  std::vector<std::pair<std::string, std::string>> problems;
  const auto wrong = [&](const char* key, const std::string& sentence) { problems.emplace_back(key, sentence); };

  const std::pair<const char*, const std::string*> words[] = {
      {"slurm.partition", &slurm.partition}, {"slurm.account", &slurm.account},
      {"slurm.qos", &slurm.qos},             {"slurm.constraint", &slurm.constraint},
      {"slurm.dependency", &slurm.dependency}};
  for (const auto& [key, value] : words) {
    const auto odd = std::find_if_not(value->begin(), value->end(), is_plain);
    if (odd == value->end()) continue;
    wrong(key, fmt::format("holds {}, which SLURM would not take as it stands; leave it out", shown(*odd)));
  }
  const auto must_match = [&](const char* key, const std::string& value, const char* pattern, const char* remedy) {
    constexpr std::size_t longest = 200;  // std::regex recurses
    if (!value.empty() && (value.size() > longest || !std::regex_match(value, std::regex(pattern)))) wrong(key, remedy);
  };
  must_match("slurm.memory", slurm.memory, "[0-9]{1,12}[KMGTkmgt]?", "is no size of memory; write it as \"64G\"");
  must_match("slurm.array", slurm.array, "[0-9]+([-:][0-9]+)*(,[0-9]+([-:][0-9]+)*)*(%[0-9]+)?",
             "is no list of numbers; write it as \"0-3\", \"1,5,7\" or \"0-9%1\"");
  if (!means_no_limit(slurm.time_limit) && !parse_time(slurm.time_limit)) {
    wrong("slurm.time_limit", "is no time that sbatch takes; write it as \"24:00:00\", \"2-12:00:00\" or minutes");
  }
  for (const auto& line : slurm.setup) {
    if (const auto at = find_control(line); at != std::string::npos) {
      wrong("slurm.setup", fmt::format("holds {} inside a line; give every line of the shell its own entry", shown(line[at])));
    }
  }
  for (const auto& option : slurm.extra) {
    if (const auto at = find_control(option); at != std::string::npos) {
      wrong("slurm.extra", fmt::format("holds {} inside an option; give every option its own entry", shown(option[at])));
    } else if (!is_option(option)) {
      wrong("slurm.extra", fmt::format("holds '{}', which is no option; write it as \"--reservation=maintenance\"", option));
    } else if (const auto sentence = barred_in(option); !sentence.empty()) {
      wrong("slurm.extra", sentence);
    }
  }
  return problems;
}

}  // namespace smlp
