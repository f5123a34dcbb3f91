#include "core/slurm_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <regex>

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

// The key that an option of slurm.extra would contradict, and with it what was made of that key; empty: none.
std::string_view key_instead_of(const std::string& option) {
  constexpr std::array<std::array<std::string_view, 3>, 7> owned = {{{"--array", "-a", "slurm.array"},
                                                                     {"--dependency", "-d", "slurm.dependency"},
                                                                     {"--nodes", "-N", "slurm.nodes"},
                                                                     {"--ntasks", "-n", "slurm.nodes"},
                                                                     {"--ntasks-per-node", "", "slurm.tasks_per_node"},
                                                                     {"--signal", "", "slurm.signal_seconds"},
                                                                     {"--time", "-t", "slurm.time_limit"}}};
  const auto name = option.substr(0, option.find_first_of("= "));
  for (const auto& [whole, letter, key] : owned) {
    if (name == whole || (!letter.empty() && name.starts_with(letter))) return key;
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

std::vector<std::pair<std::string, std::string>> slurm_problems(const JobConfig::Slurm& slurm) {
  std::vector<std::pair<std::string, std::string>> problems;
  const auto wrong = [&](const char* key, const std::string& sentence) { problems.emplace_back(key, sentence); };

  const std::pair<const char*, const std::string*> words[] = {
      {"slurm.partition", &slurm.partition}, {"slurm.account", &slurm.account},
      {"slurm.qos", &slurm.qos},             {"slurm.constraint", &slurm.constraint},
      {"slurm.dependency", &slurm.dependency}};
  for (const auto& [key, value] : words) {
    const auto odd = std::find_if_not(value->begin(), value->end(), is_plain);
    if (odd != value->end()) wrong(key, fmt::format("holds {}, which SLURM would not take as it stands; leave it out", shown(*odd)));
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
    } else if (option.starts_with("--wrap")) {
      wrong("slurm.extra", fmt::format("holds '{}', and the script is smlp's own; use slurm.setup", option));
    } else if (const auto key = key_instead_of(option); !key.empty()) {
      wrong("slurm.extra", fmt::format("holds '{}', which has a key of its own that smlp reckons with; use {}", option, key));
    }
  }
  return problems;
}

}  // namespace smlp
