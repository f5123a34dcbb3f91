#include "data/output_lock.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "core/clock.h"
#include "core/error.h"
#include "core/lock_holder.h"

namespace smlp {

namespace {

constexpr double patience_seconds = 1;
constexpr std::string_view lock_ending = ".smlp-lock";

bool is_a_number(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

// "t.bin" for "t.bin.17-0.tmp", "t.json" for "t.json.17.tmp"; "" for what no writer here gives such a name.
std::string_view final_name_of(std::string_view name) {
  constexpr std::string_view ending = ".tmp";
  if (!name.ends_with(ending)) return "";
  name.remove_suffix(ending.size());
  const auto dot = name.rfind('.');
  if (dot == std::string_view::npos) return "";
  const auto writer = name.substr(dot + 1), final_name = name.substr(0, dot);
  const auto dash = writer.find('-');
  if (dash == std::string_view::npos) {
    return is_a_number(writer) && (final_name.ends_with(".json") || final_name == "merges.txt") ? final_name : "";
  }
  const bool numbered = is_a_number(writer.substr(0, dash)) && is_a_number(writer.substr(dash + 1));
  const bool tokens = final_name.ends_with(".bin") || final_name.ends_with(".idx") || final_name.ends_with(".lengths");
  return numbered && tokens ? final_name : "";
}

}  // namespace

std::filesystem::path lock_of(const std::filesystem::path& output) {
  return output.parent_path() / fmt::format(".{}{}", output.filename().string(), lock_ending);
}

bool is_unfinished_output(const std::filesystem::path& file) {
  const auto name = file.filename().string();
  return !final_name_of(name).empty() || (name.starts_with('.') && name.ends_with(lock_ending));
}

bool make_output_folder(const std::filesystem::path& folder) {
  std::error_code code;
  const bool made = std::filesystem::create_directories(folder, code);
  if (code) {
    throw Error(ExitCode::io_failed, fmt::format("the folder {} can't be made: {}", folder.string(), code.message()));
  }
  return made;
}

OutputLock::OutputLock(const std::string& output, std::filesystem::path file, const std::vector<std::string>& written)
    : file_(std::move(file)), lock_(FileLock::none()) {
  if (file_.has_parent_path()) made_folder_ = make_output_folder(file_.parent_path());
  take(output);
  try {
    write_holder(lock_);
  } catch (const Error&) {
    std::error_code ignored;
    std::filesystem::remove(file_, ignored);
    throw;
  }
  remove_leftovers(written);
}

// Those who write these files have the lock, so all that is there is of dead ones.
void OutputLock::remove_leftovers(const std::vector<std::string>& written) const {
  for (const auto& entry : entries_of(parent_of(file_))) {
    const auto name = entry.filename().string();
    std::error_code ignored;
    if (std::find(written.begin(), written.end(), final_name_of(name)) != written.end()) {
      std::filesystem::remove(entry, ignored);
    }
  }
}

void OutputLock::take(const std::string& output) {
  for (const double end = monotonic_seconds() + patience_seconds;;) {
    lock_ = FileLock::try_lock(file_, FileLock::Kind::exclusive);
    if (lock_.held() && lock_.still_named(file_)) return;
    const auto holder = lock_.held() ? std::nullopt : possible_holder(file_);  // held: another removed it and has ended, meanwhile
    if (holder || monotonic_seconds() > end) {
      throw Error(ExitCode::call_again, fmt::format("{} is in use by {}, which writes it; wait for its end, or choose another "
                                                    "output",
                                                    output, holder ? holder->words() : "another process"));
    }
    sleep_seconds(0.02);
  }
}

OutputLock::~OutputLock() {
  std::error_code ignored;
  std::filesystem::remove(file_, ignored);  // while it is held, see take()
  if (made_folder_) std::filesystem::remove(file_.parent_path(), ignored);
}

}  // namespace smlp
