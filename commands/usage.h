// Sentences for command lines that CLI11 refuses, with the nearest command or option.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace smlp {

std::string usage_sentence(const CLI::App& app, const CLI::ParseError& error, int argc, const char* const* argv);

}  // namespace smlp
