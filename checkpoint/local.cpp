#include "checkpoint/local.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include "checkpoint/disk.h"
#include "checkpoint/names.h"
#include "checkpoint/reader.h"
#include "checkpoint/refuse.h"
#include "core/error.h"
#include "core/files.h"
#include "core/numbers.h"

namespace smlp {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view copy_infix = ".copy", sidecar_suffix = ".json";

// The number between a prefix and the first character that is no digit; `text` loses both.
std::optional<std::int64_t> take_number(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return std::nullopt;
  text.remove_prefix(prefix.size());
  return take_whole_number(text);
}

std::optional<SaveId> save_of(const std::string& name) {
  std::string_view rest = name;
  const auto step = take_number(rest, "step-");
  const auto attempt = step ? take_number(rest, ".attempt-") : std::nullopt;
  if (!attempt || !rest.empty()) return std::nullopt;
  const SaveId save{*step, static_cast<int>(*attempt)};
  return local_name(save.step, save.attempt) == name ? std::optional(save) : std::nullopt;
}

struct Part {
  int rank;
  bool copy;
};

std::optional<Part> part_of_sidecar(const std::string& name) {
  std::string_view rest = name;
  const auto rank = take_number(rest, "rank-");
  if (!rank || !std::in_range<int>(*rank)) return std::nullopt;
  const bool copy = rest.starts_with(copy_infix);
  if (copy) rest.remove_prefix(copy_infix.size());
  return rest == sidecar_suffix ? std::optional(Part{static_cast<int>(*rank), copy}) : std::nullopt;
}

void list_save(const fs::path& root, SaveId save, LocalListing& listing) {
  const auto folder = root / local_name(save.step, save.attempt);
  for (const auto& path : entries_of(folder)) {
    const auto part = part_of_sidecar(path.filename().string());
    if (!part) continue;
    LocalShard shard{.save = save,
                     .rank = part->rank,
                     .copy = part->copy,
                     .sidecar = {},
                     .file = local_files(root, save, part->rank, part->copy).shard};
    try {
      shard.sidecar = read_text(path);
      const auto sidecar = parse_sidecar(shard.sidecar);
      shard.ranks = sidecar.ranks;
      if (SaveId{sidecar.step, sidecar.attempt} != save || sidecar.rank != shard.rank || sidecar.rank >= sidecar.ranks) {
        throw Error(ExitCode::bad_data, fmt::format("it belongs to rank {} of {}, step {}, attempt {}", sidecar.rank,
                                                    sidecar.ranks, sidecar.step, sidecar.attempt));
      }
      listing.shards.push_back(std::move(shard));
    } catch (const NewerFormat& newer) {  // nothing is wrong with it, and what the run does not keep is deleted
      throw Error(ExitCode::configuration, fmt::format("the save on this node that {} belongs to was written by a newer smlp ({}): "
                                                       "go on with that one, or move the save away; nothing was deleted",
                                                       path.string(), newer.what()));
    } catch (const std::exception& error) {
      listing.faults.push_back(fmt::format("{} does not hold: {}", path.string(), error.what()));
    }
  }
}

}  // namespace

LocalFiles local_files(const fs::path& root, SaveId save, int rank, bool copy) {
  const auto folder = root / local_name(save.step, save.attempt);
  if (!copy) return {folder / shard_name(rank), folder / sidecar_name(rank)};
  const auto stem = fs::path(shard_name(rank)).stem().string() + std::string(copy_infix);
  return {folder / (stem + ".h5"), folder / (stem + std::string(sidecar_suffix))};
}

LocalListing list_local(const fs::path& root) {
  LocalListing listing;
  for (const auto& path : entries_of(root)) {
    if (const auto save = save_of(path.filename().string())) list_save(root, *save, listing);
  }
  std::ranges::sort(listing.shards, [](const LocalShard& a, const LocalShard& b) {
    return std::tie(a.save, a.rank, a.copy) < std::tie(b.save, b.rank, b.copy);
  });
  return listing;
}

std::string verify_local(const LocalShard& shard, const std::function<void()>& between) {
  try {
    const auto manifest = manifest_of({parse_sidecar(shard.sidecar)});
    check_places(manifest);
    const auto& stored = manifest.shards.front();
    const auto size = static_cast<std::int64_t>(fs::file_size(shard.file));
    if (size != stored.size) {
      return fmt::format("{} has {} bytes; its sidecar says {}", shard.file.string(), size, stored.size);
    }
    const auto fault = shard_fault(shard.file, stored, manifest, between);
    return fault.empty() ? "" : fmt::format("{}: {}", shard.file.parent_path().string(), fault);
  } catch (const std::exception& error) {
    return error.what();
  }
}

void keep_local(const fs::path& root, std::span<const SaveId> keep, std::optional<std::int64_t> up_to) noexcept {
  try {
    for (const auto& path : entries_of(root)) {
      const auto save = save_of(path.filename().string());
      if (!save || (up_to && save->step > *up_to) || std::ranges::find(keep, *save) != keep.end()) continue;
      try {
        remove_folder(path);
      } catch (const std::exception&) {
        // Another rank may be at it too.
      }
    }
  } catch (const std::exception&) {
    // No memory for the list: next time.
  }
}

}  // namespace smlp
