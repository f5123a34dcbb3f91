#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <optional>

#include "checkpoint/checkpoint.h"
#include "checkpoint/disk.h"
#include "checkpoint/manifest.h"
#include "checkpoint/names.h"
#include "core/error.h"
#include "core/version.h"

namespace smlp {

namespace fs = std::filesystem;

namespace {

constexpr int most_looks = 100;  // at a run that deletes its checkpoints while they are looked at

struct Published {
  std::int64_t step;
  fs::path path;
};

std::vector<Published> published_under(const fs::path& root) {
  std::vector<Published> list;
  std::error_code failed;
  for (const auto& path : entries_of(root, failed)) {
    if (const auto step = step_of_checkpoint(path.filename().string())) list.push_back({*step, path});
  }
  if (failed && failed != std::errc::not_a_directory) {  // not the same as one that holds less
    throw Error(ExitCode::io_failed, fmt::format("the checkpoints in {} can't be listed: {}", root.string(), failed.message()));
  }
  std::ranges::sort(list, {}, &Published::step);
  return list;
}

// As a member of a run the directory's name counts too: nothing may be resumed at a step that isn't its own.
CheckpointInfo examine(const Published& published, bool thorough) {
  auto info = thorough ? verify_checkpoint(published.path) : inspect_checkpoint(published.path);
  if (info.valid && info.step != published.step) {
    info.valid = false;
    info.reason = fmt::format("it is the checkpoint of step {} under another's name", info.step);
  }
  info.step = published.step;
  return info;
}

bool is_checkpoint(const fs::path& path) {
  return fs::exists(path / manifest_name) || step_of_checkpoint(path.filename().string()) ||
         step_of_aside(path.filename().string());
}

// A live run renames and deletes its older checkpoints, also while somebody looks at them: there is a newer one then.
bool is_gone(const fs::path& checkpoint) {
  std::error_code unknown;
  return fs::symlink_status(checkpoint, unknown).type() == fs::file_type::not_found;
}

// The newest first, up to the one that holds; nullopt when one of them went meanwhile.
std::optional<std::vector<CheckpointInfo>> examine_newest(const fs::path& root) {
  const auto list = published_under(root);
  std::vector<CheckpointInfo> examined;
  for (auto published = list.rbegin(); published != list.rend(); ++published) {
    examined.push_back(examine(*published, true));
    if (examined.back().valid) break;
    if (is_gone(examined.back().path)) return std::nullopt;
  }
  return examined;
}

fs::path newest_valid(const fs::path& root, const fs::path& as_typed, std::vector<CheckpointInfo>* rejected) {
  auto examined = examine_newest(root);
  for (int looks = 1; !examined; ++looks) {
    if (looks == most_looks) {
      throw Error(ExitCode::io_failed, fmt::format("the checkpoints in {} go faster than they can be read: name one of them, or "
                                                   "have its run keep more (checkpoint.keep_last)", as_typed.string()));
    }
    examined = examine_newest(root);
  }
  if (examined->empty()) {
    throw Error(ExitCode::configuration, fmt::format("there is no checkpoint in {}", as_typed.string()));
  }
  std::optional<fs::path> newest;
  if (examined->back().valid) {
    newest = examined->back().path;
    examined->pop_back();
  }
  std::string reasons;
  for (const auto& info : *examined) reasons += fmt::format("\n  {}: {}", info.path.filename().string(), info.reason);
  const auto code = std::ranges::any_of(*examined, &CheckpointInfo::unreadable) ? ExitCode::io_failed : ExitCode::bad_data;
  if (rejected != nullptr) std::ranges::move(*examined, std::back_inserter(*rejected));
  if (newest) return *newest;
  throw Error(code, fmt::format("no checkpoint in {} holds:{}", as_typed.string(), reasons));
}

}  // namespace

std::vector<CheckpointInfo> list_checkpoints(const fs::path& root, bool thorough) {
  std::vector<CheckpointInfo> list;
  for (const auto& published : published_under(root)) {
    auto info = examine(published, thorough);
    if (info.valid || !is_gone(info.path)) list.push_back(std::move(info));
  }
  return list;
}

void refuse_newer_formats(const std::vector<CheckpointInfo>& published) {
  const auto newer = std::ranges::find_if(published, [](const auto& info) { return info.newer_format > 0; });
  if (newer == published.end()) return;
  throw Error(ExitCode::configuration,
              fmt::format("{} is of checkpoint format version {}, and this smlp ({}) reads versions up to {}: go on with the "
                          "newer smlp that wrote it, or take another --run-dir; nothing was moved or deleted",
                          newer->path.string(), newer->newer_format, version(), checkpoint_format_version));
}

fs::path find_checkpoint(const fs::path& run_or_checkpoint, std::vector<CheckpointInfo>* rejected) {
  auto path = run_or_checkpoint;
  if (!path.has_filename()) path = path.parent_path();  // "runs/demo/"
  if (path.filename() == "." || path.filename() == "..") path = fs::weakly_canonical(path);  // a name to show
  if (!fs::is_directory(path)) {
    throw Error(ExitCode::configuration,
                fmt::format("{} is neither a run directory nor a checkpoint", run_or_checkpoint.string()));
  }
  if (!is_checkpoint(path)) {
    return newest_valid(fs::is_directory(path / "checkpoints") ? path / "checkpoints" : path, path, rejected);
  }
  const auto info = verify_checkpoint(path);
  if (info.unreadable) throw Error(ExitCode::io_failed, fmt::format("{} can't be read: {}", path.string(), info.reason));
  if (!info.valid) throw Error(ExitCode::bad_data, fmt::format("{} does not hold: {}", path.string(), info.reason));
  return path;
}

std::vector<std::string> sweep_checkpoints(const fs::path& root) {
  std::vector<std::string> failures;
  for (const auto& path : entries_of(root)) {
    if (!is_temporary(path.filename().string())) continue;
    try {
      remove_folder(path);
    } catch (const Error& error) {
      failures.emplace_back(error.what());
    }
  }
  return failures;
}

void set_aside(const fs::path& checkpoint) {
  rename_path(checkpoint, free_aside_path(checkpoint));
  sync_folder(parent_of(checkpoint));
}

}  // namespace smlp
