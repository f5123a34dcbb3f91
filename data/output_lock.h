// One process at a time writes an output: a lock in a hidden file beside it, which ends with its holder. Used by the writers
// of this room, which lay half of a result beside the other for a moment.
#pragma once

#include <filesystem>
#include <string>

#include "core/files.h"

namespace smlp {

class OutputLock {
 public:
  // `output` as the user named it; `file` is the lock (see lock_of), whose folder is made where it is missing.
  // Throws Error(call_again) naming the process that has it.
  OutputLock(const std::string& output, std::filesystem::path file);
  // Leaves no file behind, and no empty folder that it has made.
  ~OutputLock();
  OutputLock(const OutputLock&) = delete;
  OutputLock& operator=(const OutputLock&) = delete;

 private:
  void take(const std::string& output);

  std::filesystem::path file_;
  bool made_folder_ = false;
  FileLock lock_;
};

// Where the lock of an output lies: of a/train it is a/.train.smlp-lock.
std::filesystem::path lock_of(const std::filesystem::path& output);

// Makes a missing folder; says whether it did. Throws Error(io_failed).
bool make_output_folder(const std::filesystem::path& folder);

}  // namespace smlp
