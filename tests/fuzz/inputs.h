// How bytes become what a target reads.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace smlp::fuzz {

// Ends the process with the sentence where a promise does not hold.
void must(bool holds, const char* promise);

// This process's own, in memory where there is such a place; gone with it.
const std::filesystem::path& folder();
// Writes the file, and the folders above it; returns its path.
std::filesystem::path put(const std::filesystem::path& file, std::string_view bytes);

// One input for several files or words: `joined` with a byte between them that no text has.
std::vector<std::string> parts_of(std::string_view bytes);
std::string joined(const std::vector<std::string>& parts);
std::string part(const std::vector<std::string>& parts, std::size_t i);  // "" behind the last

// For readers that are called one after another: a refusal of one ends none of the others.
template <class Work>
void in_sentences(const Work& work) {
  try {
    work();
  } catch (const Error&) {
  }
}

}  // namespace smlp::fuzz
