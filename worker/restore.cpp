#include "worker/restore.h"

#include <fmt/format.h>

#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/disk.h"
#include "core/error.h"
#include "core/host_name.h"
#include "worker/side_by_side.h"
#include "worker/texts.h"

namespace smlp {

namespace fs = std::filesystem;

namespace {

// No rank can say that this checkpoint does not hold: it stays for the next attempt, which may be able to read it.
[[noreturn]] void leave_to_the_next(const fs::path& checkpoint, const std::string& trouble) {
  throw Error(ExitCode::io_failed,
              fmt::format("whether {} holds can't be told: {}; it stays, and the next attempt tries again. Where that does not "
                          "help, see to the disk and the host, or rename it, and the one before it is taken",
                          checkpoint.string(), trouble));
}

std::string trouble_here(const Communicator& world, const std::string& reason) {
  return fmt::format("rank {} on {} could not read it: {}", world.rank(), host_name(), reason);
}

// The first complaint of any rank about its share of the shards; empty when all are sound. The same on every rank, and so is
// the Error of one that can't be read where no other rank has found damage.
std::string verify_together(const fs::path& checkpoint, Communicator& world, const std::function<void()>& between) {
  std::string complaint, trouble;
  SideBySide ranks(world, between);
  try {
    complaint = verify_shards(checkpoint, world.rank(), world.size(), [&] { ranks.between(); });
  } catch (const std::exception& error) {
    trouble = trouble_here(world, sentence_of(error));
  }
  ranks.finish();
  complaint = first_text(world, complaint);
  trouble = first_text(world, trouble);
  if (complaint.empty() && !trouble.empty()) leave_to_the_next(checkpoint, trouble);
  return complaint;
}

using Rejected = std::function<void(const fs::path&, const std::string& reason)>;

// The shared directory's checkpoints, newest first, without those that are out of the question. Rank 0's.
class SharedCandidates {
 public:
  SharedCandidates(const RestoreOptions& options, const Rejected& rejected) : options_(options), rejected_(rejected) {
    found_ = list_checkpoints(options.checkpoints, false);
    refuse_newer_formats(found_);
    for (const auto& failure : sweep_checkpoints(options.checkpoints)) {
      if (options.warn) options.warn(fmt::format("what an earlier attempt left stays: {}", failure));
    }
  }

  // Perhaps one that can't be read.
  const CheckpointInfo* newest() {
    while (!found_.empty()) {
      const auto& newest = found_.back();
      if (options_.not_after && newest.step > *options_.not_after) {
        reject(fmt::format("it is newer than step {}, and what came after that step is given up", *options_.not_after));
      } else if (!newest.valid && (!newest.unreadable || is_shut(newest.path))) {
        reject(newest.reason);
      } else {
        return &newest;
      }
    }
    return nullptr;
  }

  std::string newest_sound() {
    const auto* found = newest();
    return found != nullptr && found->valid ? found->path.string() : "";
  }

  void reject(const std::string& reason) {
    const auto path = found_.back().path;
    set_aside(path);
    rejected_(path, reason);
    found_.pop_back();
  }

 private:
  const RestoreOptions& options_;
  const Rejected& rejected_;
  std::vector<CheckpointInfo> found_;
};

constexpr const char* from_nodes = "nodes";  // instead of a path: no checkpoint is called so

}  // namespace

std::optional<RestorePoint> choose_checkpoint(const RestoreOptions& options, Communicator& world,
                                              const Rejected& rejected, const std::function<void()>& between) {
  std::optional<SharedCandidates> shared;
  if (world.rank() == 0) shared.emplace(options, rejected);
  while (true) {
    between();
    std::string choice;
    if (shared) {
      const auto* newest = shared->newest();
      const auto local = options.local != nullptr ? options.local->newest() : std::nullopt;
      if (newest != nullptr) choice = newest->path.string();
      if (local && (newest == nullptr || *local > newest->step)) choice = from_nodes;
      if (newest != nullptr && newest->unreadable && choice != from_nodes) {
        leave_to_the_next(newest->path, trouble_here(world, newest->reason));
      }
    }
    choice = broadcast_text(world, choice);
    if (choice.empty()) return std::nullopt;
    if (choice == from_nodes) {
      auto source = options.local->take_newest(between);
      if (!source) continue;
      return RestorePoint{.shared = {}, .local = std::move(source),
                          .shared_beside = broadcast_text(world, shared ? shared->newest_sound() : "")};
    }
    const auto complaint = verify_together(choice, world, between);
    if (complaint.empty()) return RestorePoint{.shared = choice, .local = std::nullopt};
    if (shared) shared->reject(complaint);
  }
}

}  // namespace smlp
