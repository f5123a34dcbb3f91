// Sentences for command lines that CLI11 refuses, with the nearest command or option.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace smlp {

std::string usage_sentence(const CLI::App& app, const CLI::ParseError& error, int argc, const char* const* argv);

// What an option's value may be: a number between two bounds, both allowed; nan and what no integer holds are not.
CLI::Validator whole_number_within(std::int64_t least, std::int64_t most);
CLI::Validator number_within(double least, double most);
CLI::Validator not_empty();  // an empty shell variable must not mean "as by default"

}  // namespace smlp
