// Under mpirun: ranks with a local_dir of their own each, like a node's disk that no other node sees, and what they save there
// and begin from.
#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/run_directory.h"
#include "tests/checkpoint/sample.h"
#include "tests/comm/faraway_backend.h"
#include "tests/comm/ranks.h"
#include "worker/load_together.h"
#include "worker/restore.h"
#include "worker/saves.h"
#include "worker/texts.h"

namespace smlp::test {

namespace fs = std::filesystem;

inline int rank() { return world().rank(); }
inline int ranks() { return world().size(); }
inline bool alone() { return ranks() == 1; }

// One folder for all ranks; `nodes/N` is what node N has.
class Tiers : public testing::Test {
 protected:
  Tiers() : root_(broadcast_text(world(), rank() == 0 ? scratch_.root().string() : "")) { run_.root = root_ / "run"; }
  void SetUp() override { fs::create_directories(run_.checkpoints()); }
  void TearDown() override { world().barrier(); }

  fs::path node(int number) const { return root_ / "nodes" / fmt::format("{}", (number + ranks()) % ranks()); }
  // While its rank may still be removing what it no longer keeps.
  static void lose(const fs::path& node) {
    for (std::error_code changing; fs::exists(node);) fs::remove_all(node, changing);
  }

  // An attempt with my place on node `number`; what it found is in found_.
  struct Attempt {
    std::unique_ptr<LocalStart> start;
    std::optional<RestorePoint> from;
  };
  Attempt begin(int number, std::optional<std::int64_t> not_after = {}) {
    Attempt attempt;
    const auto say = [this](const std::string& what, const std::string& why) { said_ += what + ": " + why + "\n"; };
    attempt.start = std::make_unique<LocalStart>(node(number).string(), run_, not_after, world(), say);
    attempt.from = choose_checkpoint({run_.checkpoints(), not_after, attempt.start.get()}, world(),
                                     [&](const fs::path& path, const std::string& why) { say(path.string(), why); }, [] {});
    return attempt;
  }

  std::unique_ptr<Saves> saves(LocalStart& start, int attempt, std::int64_t step) {
    EXPECT_TRUE(start.begin(attempt, step));
    auto shared = options_for(run_.checkpoints(), ranks(), attempt);
    shared.rank = rank();
    auto local = shared;
    local.root = start.folder();
    local.local = true;
    const auto told = [this](const SaveOutcome& outcome) { outcomes_.push_back(outcome); };
    auto both = std::make_unique<Saves>(shared, told);
    both->add_local(std::make_unique<LocalTier>(local, world().split(0, rank()), start.partners(), std::nullopt, told));
    return both;
  }

  using Change = std::function<void(std::vector<Piece>&)>;
  void save(Saves& saves, std::int64_t step, Saves::Wish wish, const Change& change = {}) {
    SampleRank memory(rank(), ranks());
    memory.fill(step);
    if (change) change(memory.pieces());
    saves.begin(wish, memory.backend(), memory.pieces(), sample_state(step));
    downloads_ = dynamic_cast<FarawayBackend&>(memory.backend()).downloads;
    pieces_ = static_cast<int>(std::ranges::count_if(memory.pieces(), [](const Piece& piece) {
      return piece.mine && piece.local.size() > 0;
    }));
    memory.wipe();  // training goes on
    saves.drain(world());
  }

  // Local saves of steps 10, 20 and 30 by attempt 1.
  void three_saves() {
    auto attempt = begin(rank());
    EXPECT_FALSE(attempt.from);
    const auto all = saves(*attempt.start, 1, 0);
    for (const std::int64_t step : {10, 20, 30}) save(*all, step, {.local = true});
    for (const auto& outcome : outcomes_) EXPECT_EQ(outcome.failure, "");
    world().barrier();
  }

  // Every byte of my pieces is that of `step`, and the run state too.
  void expect_loads(Attempt& attempt, std::int64_t step, std::int64_t block_bytes = 1 << 20) {
    ASSERT_TRUE(attempt.from && attempt.from->local) << said_;
    EXPECT_EQ(attempt.from->local->id.step, step) << said_;
    SampleRank memory(rank(), ranks());
    memory.wipe();
    load_together(attempt.from->local->save, world(), memory.backend(), memory.pieces(), {.block_bytes = block_bytes});
    EXPECT_THAT(memory.wrong(step), testing::IsEmpty());
    EXPECT_EQ(attempt.from->local->save.manifest.state.integer("step"), step);
  }

  fs::path files_of(int number) const {
    for (const auto& run : fs::directory_iterator(node(number))) {
      for (const auto& host : fs::directory_iterator(run.path())) {
        if (host.is_directory()) return host.path();
      }
    }
    return {};
  }
  static void damage(const fs::path& file) { flip_bit(file, static_cast<std::int64_t>(fs::file_size(file)) * 4); }

  Scratch scratch_;
  fs::path root_;
  RunDirectory run_;
  std::string said_;  // rank 0
  std::vector<SaveOutcome> outcomes_;
  int downloads_ = 0, pieces_ = 0;
};

}  // namespace smlp::test
