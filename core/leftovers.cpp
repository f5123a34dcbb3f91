#include "core/leftovers.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <system_error>

#include "core/error.h"
#include "core/files.h"
#include "core/host_name.h"
#include "core/numbers.h"
#include "core/process.h"

namespace smlp {

namespace {

namespace fs = std::filesystem;

std::string name_on_this_host(std::string_view prefix) { return fmt::format("{}{}.", prefix, host_name()); }

// In the order in which std::filesystem looks.
std::string where_it_is_said() {
  for (const char* variable : {"TMPDIR", "TMP", "TEMP", "TEMPDIR"}) {
    if (const char* value = std::getenv(variable)) return fmt::format("{} = {}", variable, value);
  }
  return "/tmp";
}

}  // namespace

fs::path temporary_folder(std::string_view what) {
  std::error_code failed;
  auto folder = fs::temp_directory_path(failed);
  if (!failed) return folder;
  throw Error(ExitCode::configuration,
              fmt::format("{} can't be written into the folder for temporary files, {}: {}; set TMPDIR to a folder that is "
                          "there", what, where_it_is_said(), failed.message()));
}

std::string name_of_own(std::string_view prefix) { return fmt::format("{}{}", name_on_this_host(prefix), getpid()); }

OwnFolder::OwnFolder(const fs::path& parent, std::string_view prefix, std::string_view what) {
  std::string pattern = parent / (name_of_own(prefix) + ".XXXXXX");
  if (mkdtemp(pattern.data()) == nullptr) {
    throw Error(ExitCode::io_failed, fmt::format("no folder for {} could be made in {}: {}", what, parent.string(),
                                                 std::strerror(errno)));
  }
  path_ = pattern;
}

OwnFolder::~OwnFolder() {
  std::error_code stays;
  fs::remove_all(path_, stays);
}

void sweep_leftovers(const fs::path& folder, std::string_view prefix) {
  const auto before = name_on_this_host(prefix);
  for (const auto& entry : entries_of(folder)) {
    const auto name = entry.filename().string();
    const auto end = name.starts_with(before) ? name.find('.', before.size()) : std::string::npos;
    if (end == std::string::npos) continue;
    const auto process = parse_whole_number(name.substr(before.size(), end - before.size()));
    if (!process || *process <= 0 || *process > std::numeric_limits<pid_t>::max()) continue;
    if (is_alive(static_cast<pid_t>(*process))) continue;
    std::error_code of_another_user;
    fs::remove_all(entry, of_another_user);
  }
}

}  // namespace smlp
