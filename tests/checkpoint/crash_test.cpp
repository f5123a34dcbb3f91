// The process dies at every point where a save touches the disk, and at random moments: the newest checkpoint
// that holds is always found, is right to the last bit, and the next attempt saves as if nothing had been.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include "checkpoint/disk.h"
#include "tests/checkpoint/child.h"
#include "tests/checkpoint/sample.h"

namespace smlp::test {

namespace fs = std::filesystem;

namespace {

std::atomic<int> operations_left = 0;
constexpr int killed_code = 42;

void die_when_due(const char*) {
  if (operations_left-- == 0) ::_exit(killed_code);
}

WriterOptions crash_options(const fs::path& root, int attempt) {
  auto options = options_for(root, 2, attempt);
  options.keep_last = 2;
  return options;
}

// A checkpoint of step 30 whose values are those of step 31, as left by an attempt that went another way.
void save_another_30(const fs::path& root) {
  const auto aside = root / "other";
  ASSERT_TRUE(save(crash_options(aside, 1), 31, few_tensors()).published);
  ASSERT_TRUE(save(crash_options(root, 1), 30, few_tensors()).published);
  SampleRank memory(0, 1, few_tensors());
  memory.fill(31);
  CheckpointWriter writer(options_for(root, 1, 1));
  writer.begin(memory.backend(), memory.pieces(), sample_state(30));
  writer.wait();
  writer.publish();
  writer.wait();
  ASSERT_EQ(writer.state(), CheckpointWriter::State::published) << writer.failure();
  fs::remove_all(aside);
}

// Kills a save of step 30 by attempt 2 at its n-th operation, for every n. `prepare` makes what was there
// before; `newest_before` is what must be found until step 30 takes over (0: nothing).
void kill_everywhere(const std::function<void(const fs::path&)>& prepare, std::int64_t newest_before,
                     int at_least) {
  const Scratch scratch;
  const auto before = scratch.root() / "before", root = scratch.root() / "checkpoints";
  fs::create_directory(before);
  prepare(before);
  int kills = 0, found_new = 0, found_old = 0;
  for (int n = 0;; ++n, ++kills) {
    fs::remove_all(root);
    fs::copy(before, root, fs::copy_options::recursive);
    const auto outcome = in_child([&](int) {
      operations_left = n;
      fault_point = &die_when_due;
      return save(crash_options(root, 2), 30, few_tensors()).published ? "published" : "failed";
    });
    if (outcome.exit_code == 0) {
      EXPECT_EQ(outcome.said, "published");
      break;
    }
    ASSERT_EQ(outcome.exit_code, killed_code) << "signal " << outcome.signal << " " << outcome.said;
    SCOPED_TRACE(fmt::format("killed at operation {}: {}", n, fmt::join(names_in(root), " ")));

    std::int64_t found = 0;
    try {
      const auto path = find_checkpoint(root);
      found = read_run_state(path).integer("step");
      auto fault = load_fault(path, 3, found, few_tensors());
      if (!fault.empty() && found == 30) {  // the other step 30
        SampleRank memory(0, 1, few_tensors());
        load_alone(path, memory);
        fault = memory.wrong(31).empty() ? "" : fault;
      }
      EXPECT_EQ(fault, "");
    } catch (const std::exception& error) {
      EXPECT_EQ(newest_before, 0) << error.what();
    }
    EXPECT_TRUE(found == newest_before || found == 30) << found;
    (found == newest_before ? found_old : found_new)++;

    sweep_checkpoints(root);
    for (const auto& info : list_checkpoints(root, true)) EXPECT_TRUE(info.valid) << info.reason;
    const auto again = save(crash_options(root, 3), 30, few_tensors());
    EXPECT_TRUE(again.published) << again.failure;
    EXPECT_EQ(again.failure, "");
    EXPECT_EQ(find_checkpoint(root), step_path(root, 30));
    EXPECT_EQ(load_fault(step_path(root, 30), 1, 30, few_tensors()), "");
    for (const auto& name : names_in(root)) EXPECT_FALSE(name.ends_with(".tmp")) << name;
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GE(kills, at_least);
  EXPECT_GT(found_old, 0);
  EXPECT_TRUE(found_new > 0 || newest_before == 30);
}

}  // namespace

TEST(Crash, AtAnyOperationOfTheFirstSave) {
  kill_everywhere([](const fs::path&) {}, 0, 30);
}

TEST(Crash, AtAnyOperationOfASaveThatLetsOldOnesGo) {
  const auto three = [](const fs::path& root) {
    for (const std::int64_t step : {5, 10})
      ASSERT_TRUE(save(crash_options(root, 1), step, few_tensors()).published);
    set_aside(step_path(root, 5));  // one more to let go
    ASSERT_TRUE(save(crash_options(root, 1), 15, few_tensors()).published);
    ASSERT_TRUE(save(crash_options(root, 1), 20, few_tensors()).published);
  };
  kill_everywhere(three, 20, 40);
}

TEST(Crash, AtAnyOperationOfASaveThatTakesAnothersPlace) { kill_everywhere(&save_another_30, 30, 30); }

TEST(Crash, AtAnyOperationOfASaveThatReplacesADamagedOne) {
  const auto damaged = [](const fs::path& root) {
    for (const std::int64_t step : {20, 30})
      ASSERT_TRUE(save(crash_options(root, 1), step, few_tensors()).published);
    flip_bit(step_path(root, 30) / "rank-0001.h5", 8 * 300);
  };
  const Scratch scratch;
  damaged(scratch.root());
  ASSERT_EQ(find_checkpoint(scratch.root()), step_path(scratch.root(), 20));
  // As a start does it: rejected, moved aside, then saved anew.
  const auto set_aside_first = [&](const fs::path& root) {
    damaged(root);
    set_aside(step_path(root, 30));
  };
  kill_everywhere(set_aside_first, 20, 30);
}

// What a kill can't show: that nothing is renamed before it is flushed.
TEST(Crash, EverythingIsFlushedBeforeItCounts) {
  static std::vector<std::string> trace;
  static std::mutex mutex;
  trace.clear();
  const Scratch scratch;
  fault_point = [](const char* operation) {
    const std::lock_guard lock(mutex);
    trace.emplace_back(operation);
  };
  const auto saved = save(options_for(scratch.root(), 2), 30);
  fault_point = nullptr;
  ASSERT_TRUE(saved.published);
  bool dirty_file = false, dirty_folder = false;
  int renames = 0;
  for (const auto& operation : trace) {
    if (operation == "write" || operation == "reserve space") dirty_file = true;
    if (operation == "create file" || operation == "remove file") dirty_folder = true;
    if (operation == "sync file") dirty_file = false;
    if (operation == "sync folder") dirty_folder = false;
    EXPECT_TRUE(operation != "close file" || !dirty_file);
    if (operation == "rename") {
      ++renames;
      EXPECT_FALSE(dirty_file);
      EXPECT_TRUE(!dirty_folder || renames != 2);  // 1: the fence, 2: the checkpoint, 3: LATEST
      dirty_folder = true;
    }
  }
  EXPECT_EQ(renames, 3);
  EXPECT_FALSE(dirty_folder);
  EXPECT_EQ(std::ranges::count(trace, "sync file"), 1 + 2 * 2 + 2 + 1);
}

TEST(Crash, AtRandomMomentsNothingPublishedIsLost) {
  const Scratch scratch;
  const auto root = scratch.root();
  std::mt19937 random(7);
  ASSERT_TRUE(save(crash_options(root, 1), 1, few_tensors()).published);
  // About what one save takes: found on the way, for it changes with what else the machine does.
  std::chrono::nanoseconds one_save = std::chrono::milliseconds(8);
  std::int64_t published = 1;
  const auto enough = std::chrono::steady_clock::now() + std::chrono::seconds(10);  // on a busy machine
  for (int attempt = 1; attempt <= 40; ++attempt) {
    if (published > 5 && std::chrono::steady_clock::now() > enough) break;
    const auto outcome = in_child(
        [&](int descriptor) {
          sweep_checkpoints(root);
          for (std::int64_t step = published + 1;; ++step) {
            const auto saved = save(crash_options(root, attempt), step, few_tensors());
            if (!saved.published) return "failed: " + saved.failure;
            if (::write(descriptor, &step, sizeof step) != sizeof step) return std::string("no pipe");
          }
        },
        [&](pid_t child) {
          std::this_thread::sleep_for(one_save * (random() % 300) / 100);
          ::kill(child, SIGKILL);
        });
    ASSERT_EQ(outcome.signal, SIGKILL) << outcome.said;
    ASSERT_EQ(outcome.said.size() % sizeof(std::int64_t), 0u) << outcome.said;
    one_save = outcome.said.empty() ? one_save * 2 : one_save * 3 / 4;
    if (!outcome.said.empty()) {
      std::memcpy(&published, outcome.said.data() + outcome.said.size() - sizeof published, sizeof published);
    }
    std::vector<CheckpointInfo> rejected;
    const auto path = find_checkpoint(root, &rejected);
    EXPECT_TRUE(rejected.empty());
    const auto found = read_run_state(path).integer("step");
    EXPECT_TRUE(found == published || found == published + 1) << found << " after " << published;
    EXPECT_EQ(load_fault(path, 1, found, few_tensors()), "");
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GT(published, 5);
}

}  // namespace smlp::test
