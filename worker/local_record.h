// RUN/local_tier.json: under which name nodes keep this run's local saves, and from which step each attempt went on. It
// is the fence of the local tier: nodes can't see each other's folders, and a rank that was cut off may finish a save
// long after the run has gone on without it. A plain value; rank 0 reads and writes the file, all ranks have a copy.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/local.h"
#include "core/run_directory.h"

namespace smlp {

class LocalRecord {
 public:
  // The record of this run directory; a new one, under which nothing counts yet, where there is none, or a damaged one, or
  // where it came here with a copy of another run. Throws Error(io_failed) where the disk does not show it: with a new
  // name the run's saves would be another's, and be swept away.
  static LocalRecord of(const RunDirectory& run);
  static LocalRecord parse(const std::string& text);  // of text(); throws Error(bad_data)
  std::string text() const;                           // JSON

  const std::string& name() const { return name_; }  // of the run's folder in each node's local_dir
  const std::string& run() const { return run_; }    // the run directory's path, as JSON keeps it

  // A save is the run's own unless a later attempt went on from an earlier step.
  bool counts(SaveId save) const;
  void began(int attempt, std::int64_t step);

 private:
  std::string name_, run_;
  std::vector<std::pair<int, std::int64_t>> starts_;  // attempt, step: both ascending; what later ones undo is dropped
};

// Where an earlier attempt had local saves and this one has none: those of later steps than it goes on from count no more.
// Throws Error(io_failed) where that can't be recorded.
void give_up_later_local_saves(const RunDirectory& run, int attempt, std::int64_t step);

}  // namespace smlp
