#include "checkpoint/publish.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "checkpoint/disk.h"
#include "checkpoint/disk_watch.h"
#include "checkpoint/hdf5_image.h"
#include "checkpoint/manifest.h"
#include "checkpoint/names.h"
#include "checkpoint/refuse.h"
#include "core/digest.h"
#include "core/error.h"
#include "core/files.h"
#include "core/run_directory.h"

namespace smlp {

namespace fs = std::filesystem;

namespace {

// Another machine's file may show up late on a network disk.
void await_file(const fs::path& path, double patience_seconds) {
  using namespace std::chrono;
  const auto deadline = steady_clock::now() + duration<double>(patience_seconds);
  while (!fs::exists(path)) {
    if (steady_clock::now() >= deadline) {
      throw Error(ExitCode::io_failed,
                  fmt::format("{} did not show up within {} s, though its rank wrote it; is the "
                              "checkpoint folder shared by all ranks?",
                              path.string(), patience_seconds));
    }
    std::this_thread::sleep_for(10ms);
    disk_answered();  // it is the other rank's file that is late
  }
}

Sidecar read_sidecar(const WriterOptions& options, const fs::path& folder, std::int64_t step, int rank) {
  const auto path = folder / sidecar_name(rank);
  await_file(path, options.patience_seconds);
  try {
    auto sidecar = parse_sidecar(read_text(path));
    if (sidecar.step != step || sidecar.attempt != options.attempt || sidecar.rank != rank ||
        sidecar.ranks != options.ranks || sidecar.shard.file != shard_name(rank)) {
      refuse_save(fmt::format("it belongs to rank {} of {}, step {}, attempt {}", sidecar.rank, sidecar.ranks,
                              sidecar.step, sidecar.attempt));
    }
    const auto shard = folder / sidecar.shard.file;
    await_file(shard, options.patience_seconds);
    if (const auto size = static_cast<std::int64_t>(fs::file_size(shard)); size != sidecar.shard.size) {
      refuse_save(fmt::format("{} has {} bytes instead of {}", shard.string(), size, sidecar.shard.size));
    }
    return sidecar;
  } catch (const Error& error) {
    throw Error(ExitCode::io_failed, fmt::format("{} does not hold: {}", path.string(), error.what()));
  }
}

Manifest gather_manifest(const WriterOptions& options, const fs::path& folder, std::int64_t step,
                         const RunState& state) {
  std::vector<Sidecar> sidecars;
  for (int rank = 0; rank < options.ranks; ++rank) sidecars.push_back(read_sidecar(options, folder, step, rank));
  auto manifest = manifest_of(std::move(sidecars));
  manifest.state = state;
  const auto fault = coverage_fault(manifest.tensors, manifest.shards);
  if (!fault.empty()) refuse_save(fmt::format("the checkpoint of step {} is not published: {}", step, fault));
  return manifest;
}

bool same_contents(const Manifest& a, const Manifest& b) {
  const auto same_tensor = [](const LogicalTensor& x, const LogicalTensor& y) {
    return x.name == y.name && x.shape == y.shape && x.dtype == y.dtype;
  };
  return difference_of(a.state, b.state).empty() && a.shards.size() == b.shards.size() &&
         std::equal(a.tensors.begin(), a.tensors.end(), b.tensors.begin(), b.tensors.end(), same_tensor) &&
         std::equal(a.shards.begin(), a.shards.end(), b.shards.begin(),
                    [](const StoredShard& x, const StoredShard& y) { return x.pieces == y.pieces; });
}

bool already_published(const fs::path& target, const Manifest& manifest) {
  try {
    return same_contents(read_manifest(target), manifest) && verify_checkpoint(target).valid;
  } catch (const std::exception&) {
    return false;
  }
}

// A directory of that name from before stays readable until the new one is in its place.
void put_in_place(const fs::path& folder, const fs::path& target) {
  if (!fs::exists(fs::symlink_status(target))) {
    rename_path(folder, target);
  } else if (exchange_paths(folder, target)) {
    rename_path(folder, free_aside_path(target));
  } else {
    set_aside(target);
    rename_path(folder, target);
  }
  sync_folder(target.parent_path());
}

void point_latest_at(const WriterOptions& options, const fs::path& target) {
  const auto beside = options.root / temporary_name(latest_name, options.attempt);
  write_file(beside, target.filename().string() + "\n");
  rename_path(beside, options.root / latest_name);
  sync_folder(options.root);
}

// First out of sight, then off the disk.
void let_go(const WriterOptions& options, const fs::path& checkpoint, std::int64_t step) {
  const auto outgoing = options.root / temporary_name(step, options.attempt);
  rename_path(checkpoint, outgoing);
  sync_folder(options.root);
  remove_folder(outgoing);
}

// The earliest of the least recorded loss, among those whose job keeps the best, or all where this one does; -1: none is there.
std::int64_t best_step(const std::vector<CheckpointInfo>& all, bool keep_best) {
  const CheckpointInfo* best = nullptr;
  for (const auto& one : all) {
    if (!one.valid || !one.validation_loss || !(keep_best || one.best_stays)) continue;
    if (best == nullptr || *one.validation_loss < *best->validation_loss) best = &one;
  }
  return best == nullptr ? -1 : best->step;
}

}  // namespace

void raise_fence(const fs::path& root, int attempt) {
  const int fence = attempt_in_charge(root);
  if (fence > attempt) {
    throw Error(ExitCode::call_again,
                fmt::format("attempt {} of this run has taken over; attempt {} publishes no more "
                            "checkpoints in {}",
                            fence, attempt, root.string()));
  }
  if (fence == attempt) return;
  make_folder(root);
  const auto beside = root / temporary_name(fence_name, attempt);
  write_file(beside, fmt::format("{}\n", attempt));
  rename_path(beside, root / fence_name);
  sync_folder(root);
}

std::string publish_checkpoint(const WriterOptions& options, const fs::path& folder, std::int64_t step,
                               const RunState& state) {
  raise_fence(options.root, options.attempt);
  auto manifest = gather_manifest(options, folder, step, state);
  const auto target = options.root / checkpoint_name(step);
  if (already_published(target, manifest)) {
    remove_folder(folder);
    return "";
  }
  const auto whole = make_whole_image(manifest);
  manifest.whole_size = static_cast<std::int64_t>(whole.size());
  manifest.whole_digest = digest_of(whole);
  write_file(folder / whole_name, whole);
  write_file(folder / manifest_name, to_text(manifest));
  for (int rank = 0; rank < options.ranks; ++rank) remove_file(folder / sidecar_name(rank));
  sync_folder(folder);
  raise_fence(options.root, options.attempt);  // what came before takes long
  put_in_place(folder, target);
  try {
    point_latest_at(options, target);
    raise_fence(options.root, options.attempt);
    apply_retention(options);
  } catch (const std::exception& error) {
    return fmt::format("{} is published, but: {}", target.string(), error.what());
  }
  return "";
}

void apply_retention(const WriterOptions& options) {
  auto all = list_checkpoints(options.root, false);
  std::erase_if(all, [](const auto& checkpoint) {  // these stay
    return checkpoint.newer_format > 0 || (checkpoint.unreadable && is_shut(checkpoint.path));
  });
  if (const auto unknown = std::ranges::find_if(all, &CheckpointInfo::unreadable); unknown != all.end()) {
    throw Error(ExitCode::io_failed, fmt::format("no older checkpoint is deleted while {} can't be read: {}",
                                                 unknown->path.filename().string(), unknown->reason));
  }
  const auto sound = static_cast<int>(std::ranges::count_if(all, &CheckpointInfo::valid));
  if (sound == 0) return;
  int to_pass =
      std::max(0, sound - std::max(1, options.keep_last));  // sound ones older than the last keep_last
  const std::int64_t best = best_step(all, options.keep_best);
  std::int64_t oldest_recent = 0;
  for (const auto& checkpoint : all) {
    const bool every = checkpoint.stays || (options.keep_every > 0 && checkpoint.step % options.keep_every == 0);
    if (to_pass == 0 && checkpoint.valid) {
      oldest_recent = checkpoint.step;
      break;
    }
    if (checkpoint.valid) --to_pass;
    if (!every && checkpoint.step != best) let_go(options, checkpoint.path, checkpoint.step);
  }
  std::error_code failed;
  const auto entries = entries_of(options.root, failed);
  if (failed) fail_io("listing", options.root, failed.value());
  for (const auto& path : entries) {
    const auto step = step_of_aside(path.filename().string());
    if (step && *step < oldest_recent && inspect_checkpoint(path).newer_format == 0) let_go(options, path, *step);
  }
}

}  // namespace smlp
