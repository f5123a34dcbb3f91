// One process at a time writes an output: a lock in a hidden file beside it, which ends with its holder. Used by the writers
// of this room, which lay half of a result beside the other for a moment; whoever has the lock clears away what those left
// there that were killed.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/files.h"

namespace smlp {

class OutputLock {
 public:
  // `output` as the user named it; `file` is the lock (see lock_of), whose folder is made where it is missing; `written` are
  // the names of what is written in that folder, whose temporary files of others are removed.
  // Throws Error(call_again) naming the process that has it.
  OutputLock(const std::string& output, std::filesystem::path file, const std::vector<std::string>& written);
  // Leaves no file behind, and no empty folder that it has made.
  ~OutputLock();
  OutputLock(const OutputLock&) = delete;
  OutputLock& operator=(const OutputLock&) = delete;

 private:
  void take(const std::string& output);
  void remove_leftovers(const std::vector<std::string>& written) const;

  std::filesystem::path file_;
  bool made_folder_ = false;
  FileLock lock_;
};

// Where the lock of an output lies: of a/train it is a/.train.smlp-lock.
std::filesystem::path lock_of(const std::filesystem::path& output);

// Is it by its name what a writer of this room keeps beside its output until that is whole, a lock included? Then it is no
// text: t.bin.17-0.tmp and t.lengths.17-1.tmp (OutputFile), t.json.17.tmp and merges.txt.17.tmp (write_durably).
bool is_unfinished_output(const std::filesystem::path& file);

// Makes a missing folder; says whether it did. Throws Error(io_failed).
bool make_output_folder(const std::filesystem::path& folder);

}  // namespace smlp
