// A user's own table of hash routing (routing.hash_table): a text file with one expert for each id of the vocabulary, in
// order, apart by white space.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace smlp {

// [vocabulary], each below `experts`. Throws Error(configuration) when it can't be read, is no such table, or names an
// expert that does not exist.
std::vector<std::int32_t> read_hash_table(const std::filesystem::path& file, std::int64_t vocabulary, std::int64_t experts);

}  // namespace smlp
