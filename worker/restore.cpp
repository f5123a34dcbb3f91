#include "worker/restore.h"

#include <fmt/format.h>

#include <cstring>
#include <span>
#include <vector>

#include "checkpoint/checkpoint.h"

namespace smlp {

namespace {

std::vector<std::byte> to_bytes(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

std::string to_text(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string broadcast_text(Communicator& world, const std::string& mine) {
  auto bytes = to_bytes(mine);
  world.broadcast_bytes(bytes, 0);
  return to_text(bytes);
}

// The first complaint of any rank about its share of the shards; empty when all are sound. The same on every rank.
std::string verify_together(const std::filesystem::path& checkpoint, Communicator& world) {
  std::string complaint;
  try {
    complaint = verify_shards(checkpoint, world.rank(), world.size());
  } catch (const std::exception& error) {
    complaint = error.what();
  }
  const auto all = world.gather_bytes(to_bytes(complaint), 0);
  std::string first;
  for (const auto& bytes : all) {
    if (first.empty()) first = to_text(bytes);
  }
  return broadcast_text(world, first);
}

}  // namespace

std::optional<std::filesystem::path> choose_checkpoint(
    const std::filesystem::path& checkpoints, std::optional<std::int64_t> not_after, Communicator& world,
    const std::function<void(const std::filesystem::path&, const std::string& reason)>& rejected,
    const std::function<void()>& between) {
  const bool root = world.rank() == 0;
  std::vector<CheckpointInfo> found;
  if (root) {
    sweep_checkpoints(checkpoints);
    found = list_checkpoints(checkpoints, false);
  }
  const auto set_aside_for = [&](const std::filesystem::path& path, const std::string& reason) {
    if (!root) return;
    set_aside(path);
    rejected(path, reason);
  };
  while (true) {
    between();
    std::string candidate;
    while (root && !found.empty() && candidate.empty()) {
      const auto newest = found.back();
      found.pop_back();
      if (not_after && newest.step > *not_after) {
        set_aside_for(newest.path, fmt::format("it is newer than step {}, and what came after that step is given up", *not_after));
      } else if (!newest.valid) {
        set_aside_for(newest.path, newest.reason);
      } else {
        candidate = newest.path.string();
      }
    }
    candidate = broadcast_text(world, candidate);
    if (candidate.empty()) return std::nullopt;
    const auto complaint = verify_together(candidate, world);
    if (complaint.empty()) return candidate;
    set_aside_for(candidate, complaint);
  }
}

}  // namespace smlp
