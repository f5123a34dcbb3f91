#include "commands/usage.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <vector>

#include "core/error.h"

namespace smlp {

namespace {

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const auto* command : app.get_subcommands({})) {
    if (!command->get_group().empty()) names.push_back(command->get_name());  // those without are not for people
  }
  return names;
}

const CLI::App* find_command(const CLI::App& app, const std::string& name) {
  for (const auto* command : app.get_subcommands({})) {
    if (command->get_name() == name) return command;
  }
  return nullptr;
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const auto* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& known) {
  const auto near = nearest_name(word, known);
  return near.empty() ? "" : fmt::format("; did you mean {}?", near);
}

// A sentence when the word is an option that the command does not have, else "".
std::string unknown_option(const CLI::App& place, const std::string& path, const std::string& word) {
  const auto name = word.substr(0, word.find('='));
  if (!name.starts_with("--") || name.size() < 3 || place.get_option_no_throw(name) != nullptr) return "";
  return fmt::format("`{}` has no option {}{}", path, name, did_you_mean(name, option_names(place)));
}

template <class T>
std::optional<T> parsed(const std::string& text) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end ? std::optional(value) : std::nullopt;
}

// Comparisons are written so that nan fails them.
template <class T>
CLI::Validator within(T least, T most, const std::string& kind) {
  return CLI::Validator(
      [=](std::string& text) {
        const auto value = parsed<T>(text);
        const bool sound = value && *value >= least && *value <= most;
        return sound ? std::string() : fmt::format("'{}' is not {} from {} to {}", text, kind, least, most);
      },
      "");
}

}  // namespace

CLI::Validator whole_number_within(std::int64_t least, std::int64_t most) { return within(least, most, "a whole number"); }
CLI::Validator number_within(double least, double most) { return within(least, most, "a number"); }
CLI::Validator not_empty() {
  return CLI::Validator([](std::string& text) { return std::string(text.empty() ? "it is empty" : ""); }, "");
}

std::string usage_sentence(const CLI::App& app, const CLI::ParseError& error, int argc, const char* const* argv) {
  const CLI::App* place = &app;
  std::string path = app.get_name();
  int at = 1;
  for (; at < argc; ++at) {
    const std::string word = argv[at];
    if (command_names(*place).empty()) break;
    if (word.starts_with("-")) {
      if (const auto sentence = unknown_option(*place, path, word); !sentence.empty()) return sentence;
      continue;
    }
    const auto* command = find_command(*place, word);
    if (command == nullptr) {
      return fmt::format("there is no command '{} {}'{}", path, word, did_you_mean(word, command_names(*place)));
    }
    place = command;
    path += " " + word;
  }
  const auto help = fmt::format("`{} --help` says more", path);
  if (!command_names(*place).empty()) {
    return fmt::format("`{}` needs a command: {}; {}", path, fmt::join(command_names(*place), ", "), help);
  }
  for (; at < argc; ++at) {
    if (const auto sentence = unknown_option(*place, path, argv[at]); !sentence.empty()) return sentence;
  }
  return fmt::format("{}: {}; {}", path, error.what(), help);
}

}  // namespace smlp
