#include "tests/failing_readdir.h"

#include <dirent.h>
#include <dlfcn.h>

#include <cerrno>
#include <cstring>

namespace {

int entries_left = -1, ghosts_left = 0;
dirent ghost{};
DIR* ghost_shown = nullptr;  // the folder that ends behind it

}  // namespace

extern "C" dirent* readdir(DIR* folder) {
  static const auto real = reinterpret_cast<dirent* (*)(DIR*)>(dlsym(RTLD_NEXT, "readdir"));
  if (entries_left == 0) {
    errno = ESTALE;
    return nullptr;
  }
  if (entries_left > 0) --entries_left;
  if (folder == ghost_shown) {
    ghost_shown = nullptr;
    return nullptr;
  }
  dirent* entry = real(folder);
  if (entry != nullptr || ghosts_left == 0) return entry;
  --ghosts_left;
  ghost_shown = folder;
  return &ghost;
}

namespace smlp::test {

ChangedReaddir::ChangedReaddir(int entries, const std::string& name, int times) {
  std::strncpy(ghost.d_name, name.c_str(), sizeof ghost.d_name - 1);
  ghost.d_ino = 1;
  ghost.d_type = DT_UNKNOWN;
  entries_left = entries;
  ghosts_left = times;
}

ChangedReaddir::~ChangedReaddir() {
  entries_left = -1;
  ghosts_left = 0;
}

}  // namespace smlp::test
