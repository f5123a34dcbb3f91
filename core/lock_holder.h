// Who holds a lock on a file (core/files.h: FileLock): words that its holder writes into it, right after it took the lock.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <string>

#include "core/files.h"

namespace smlp {

struct LockHolder {
  std::string host;
  pid_t pid = 0;

  bool here() const;          // on this host
  bool alive() const;         // of a holder here
  std::string words() const;  // "process 17 on node3"
};

void write_holder(FileLock& lock);  // this process
// Who took the lock last, dead or alive; nullopt where nobody ever did, or where that can't be read.
std::optional<LockHolder> last_holder(const std::filesystem::path& lock);
// The same where it can still have it: the words of a dead process of this host are its predecessor's.
std::optional<LockHolder> possible_holder(const std::filesystem::path& lock);

}  // namespace smlp
