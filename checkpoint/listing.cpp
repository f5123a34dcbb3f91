#include <fmt/format.h>

#include <algorithm>

#include "checkpoint/checkpoint.h"
#include "checkpoint/disk.h"
#include "checkpoint/manifest.h"
#include "checkpoint/names.h"
#include "core/error.h"

namespace smlp {

namespace fs = std::filesystem;

namespace {

struct Published {
  std::int64_t step;
  fs::path path;
};

std::vector<Published> published_under(const fs::path& root) {
  std::vector<Published> list;
  std::error_code shut;
  if (fs::directory_iterator(root, shut); shut == std::errc::permission_denied) {  // not the same as an empty one
    throw Error(ExitCode::io_failed, fmt::format("the checkpoints in {} can't be listed: {}", root.string(), shut.message()));
  }
  for (const auto& path : entries_of(root)) {
    if (const auto step = step_of_checkpoint(path.filename().string())) list.push_back({*step, path});
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
bool is_gone(const fs::path& checkpoint) { return !fs::exists(fs::symlink_status(checkpoint)); }

fs::path newest_valid(const fs::path& root, const fs::path& as_typed, std::vector<CheckpointInfo>* rejected) {
  auto list = published_under(root);
  std::string reasons;
  for (auto published = list.rbegin(); published != list.rend(); ++published) {
    const auto info = examine(*published, true);
    if (info.valid) return info.path;
    if (is_gone(info.path)) return newest_valid(root, as_typed, rejected);
    reasons += fmt::format("\n  {}: {}", info.path.filename().string(), info.reason);
    if (rejected != nullptr) rejected->push_back(info);
  }
  if (list.empty()) {
    throw Error(ExitCode::configuration, fmt::format("there is no checkpoint in {}", as_typed.string()));
  }
  throw Error(ExitCode::bad_data, fmt::format("no checkpoint in {} holds:{}", as_typed.string(), reasons));
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
  if (!info.valid)
    throw Error(ExitCode::bad_data, fmt::format("{} does not hold: {}", path.string(), info.reason));
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
  sync_folder(checkpoint.has_parent_path() ? checkpoint.parent_path() : fs::path("."));
}

}  // namespace smlp
