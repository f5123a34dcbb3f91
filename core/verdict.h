// What the ranks of an attempt leave behind when they end it over what they have computed (a spike of the loss,
// replicas that differ): where the next attempt may begin, or that there shall be none. One file an attempt,
// RunDirectory::verdict(), written by rank 0 before any rank leaves, read by the launcher.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace smlp {

struct Verdict {
  bool stop = false;            // trying again can't help
  bool budgeted = false;        // the ranks count such ends themselves: no sign of a run without progress
  std::int64_t not_after = 0;   // checkpoints of later steps are given up
  std::string reason;           // a sentence without a full stop
};

void write_verdict(const std::filesystem::path& file, const Verdict& verdict);  // durably
std::optional<Verdict> read_verdict(const std::filesystem::path& file);         // nullopt: none, or damaged

}  // namespace smlp
