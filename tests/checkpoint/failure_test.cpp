// Disks that fail: whatever goes wrong, the save says so in a sentence, leaves nothing behind, and the
// process, its older checkpoints and its next save are as before.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "checkpoint/disk.h"
#include "core/error.h"
#include "tests/checkpoint/child.h"
#include "tests/checkpoint/sample.h"

namespace smlp::test {

namespace fs = std::filesystem;

namespace {

std::atomic<int> operations_left = 0;

void fail_when_due(const char* operation) {
  if (operations_left-- == 0) throw Error(ExitCode::io_failed, fmt::format("planted: {}", operation));
}

// "" when a failed or published save of step 20 left everything as it should be.
std::string state_fault(const fs::path& root, const SaveResult& saved,
                        const std::vector<SampleTensor>& tensors, bool nothing_temporary = true) {
  std::string fault;
  if (!saved.published && saved.failure.empty()) fault += "no sentence; ";
  if (!saved.published && saved.failure.find("the checkpoint of step 20 failed on rank") != 0) {
    fault += fmt::format("odd sentence '{}'; ", saved.failure);
  }
  for (const auto& name : names_in(root)) {
    if (nothing_temporary && name.ends_with(".tmp")) fault += name + " was left; ";
  }
  const auto found = find_checkpoint(root);
  const auto step = read_run_state(found).integer("step");
  // A failure between the rename and the end of its flush: it is there, but not vouched for.
  if (step != 20 && (saved.published || step != 10)) fault += fmt::format("found step {}; ", step);
  return fault + load_fault(found, 1, step, tensors);
}

}  // namespace

TEST(Failure, AtAnyOperation) {
  const Scratch scratch;
  const auto before = scratch.root() / "before", root = scratch.root() / "checkpoints";
  for (const std::int64_t step : {1, 5, 10})
    ASSERT_TRUE(save(options_for(before, 2), step, few_tensors()).published);
  int failures = 0, notes = 0;
  for (int n = 0;; ++n) {
    fs::remove_all(root);
    fs::copy(before, root, fs::copy_options::recursive);
    operations_left = n;
    fault_point = &fail_when_due;
    const auto saved = save(options_for(root, 2), 20, few_tensors());
    fault_point = nullptr;
    if (operations_left >= 0) {
      EXPECT_TRUE(saved.published);
      break;
    }
    SCOPED_TRACE(fmt::format("operation {} failed: {}", n, saved.failure));
    (saved.published ? notes : failures)++;
    // After the publication an old one may be half gone: it is swept at the next start.
    EXPECT_EQ(state_fault(root, saved, few_tensors(), !saved.published), "");
    sweep_checkpoints(root);
    const auto next = save(options_for(root, 2), 30, few_tensors());
    EXPECT_TRUE(next.published) << next.failure;
    EXPECT_EQ(load_fault(step_path(root, 30), 3, 30, few_tensors()), "");
    for (const auto& name : names_in(root)) EXPECT_FALSE(name.ends_with(".tmp")) << name;
    if (HasFailure()) return;
  }
  EXPECT_GT(failures, 20);
  EXPECT_GT(notes, 5);
}

namespace {

// In a mount namespace of the child's own, so that nothing is left mounted whatever happens.
std::string mount_small_disk(const fs::path& where, const std::string& size) {
  if (::unshare(CLONE_NEWNS) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return "no namespace";
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return "no private mounts";
  if (::mount("none", where.c_str(), "tmpfs", 0, ("size=" + size).c_str()) != 0) return "no tmpfs";
  return "";
}

// Fills the disk but for `free` bytes.
void fill_disk(const fs::path& where, std::uintmax_t free) {
  std::ofstream file(where / "filler");
  const std::string page(4096, 'x');
  while (fs::space(where).available > free && file.write(page.data(), std::ssize(page)).flush()) {
  }
}

std::string save_on_a_full_disk(const fs::path& where) {
  if (const auto reason = mount_small_disk(where, "2m"); !reason.empty()) return "skip: " + reason;
  const auto root = where / "checkpoints";
  if (!save(options_for(root, 2), 10).published) return "could not save the first one";
  int failures = 0;
  for (std::uintmax_t free = 0; free <= 120 << 10; free += 4096) {
    fill_disk(where, free);
    const auto saved = save(options_for(root, 2), 20);
    fs::remove(where / "filler");
    const auto fault = state_fault(root, saved, sample_tensors());
    if (!fault.empty()) return fmt::format("{} bytes free: {}", free, fault);
    if (!saved.published) {
      ++failures;
      if (saved.failure.find("No space left on device; free some space") == std::string::npos)
        return saved.failure;
      if (fs::exists(step_path(root, 20))) return "a failed one is there";
      const auto next = save(options_for(root, 2), 20);
      if (!next.published) return "after making room: " + next.failure;
    }
    fs::remove_all(step_path(root, 20));
  }
  return failures > 15 ? "fine" : fmt::format("only {} failures", failures);
}

}  // namespace

TEST(Failure, AFullDisk) {
  const Scratch scratch;
  const auto outcome = in_child([&](int) { return save_on_a_full_disk(scratch.root()); });
  if (outcome.said.starts_with("skip"))
    GTEST_SKIP() << "a small disk can't be mounted here: " << outcome.said;
  EXPECT_EQ(outcome.said, "fine");
  EXPECT_EQ(outcome.exit_code, 0) << "signal " << outcome.signal;  // HDF5's clean-up at exit included
}

TEST(Failure, AFileSizeLimit) {
  const Scratch scratch;
  for (const rlim_t limit : {100, 3000, 12000}) {
    const auto root = scratch.root() / std::to_string(limit);
    ASSERT_TRUE(save(options_for(root, 2), 10).published);
    const auto outcome = in_child([&](int) {
      const rlimit small{limit, RLIM_INFINITY};
      ::setrlimit(RLIMIT_FSIZE, &small);
      const auto saved = save(options_for(root, 2), 20);
      const rlimit none{RLIM_INFINITY, RLIM_INFINITY};
      ::setrlimit(RLIMIT_FSIZE, &none);
      if (saved.published) return std::string("published");
      if (saved.failure.find("ulimit -f") == std::string::npos) return saved.failure;
      const auto fault = state_fault(root, saved, sample_tensors());
      return fault.empty() && save(options_for(root, 2), 20).published ? "fine" : "then: " + fault;
    });
    EXPECT_EQ(outcome.said, "fine");
    EXPECT_EQ(outcome.exit_code, 0) << "signal " << outcome.signal;
  }
}

TEST(Failure, AFolderThatCannotBeMade) {
  const Scratch scratch;
  std::ofstream(scratch.root() / "file") << "x";
  const auto saved = save(options_for(scratch.root() / "file" / "checkpoints", 1), 20);
  EXPECT_FALSE(saved.published);
  EXPECT_NE(saved.failure.find("making the folder"), std::string::npos) << saved.failure;
}

#ifndef SMLP_SANITIZED  // which ends the process where it gets no memory of its own
TEST(Failure, TooLittleHostMemory) {
  const Scratch scratch;
  const auto outcome = in_child([&](int) -> std::string {
    const std::vector<SampleTensor> large = {{"large", {16 << 20}, DType::f32, Spread::replicated}};
    SampleRank memory(0, 1, large);
    const rlimit small{(32 << 20), RLIM_INFINITY};
    ::setrlimit(RLIMIT_DATA, &small);
    CheckpointWriter writer(options_for(scratch.root(), 1));
    writer.begin(memory.backend(), memory.pieces(), sample_state(20));
    if (writer.state() != CheckpointWriter::State::failed) return "not failed";
    if (writer.failure().find("bytes of host memory") == std::string::npos) return writer.failure();
    writer.release();
    const rlimit none{RLIM_INFINITY, RLIM_INFINITY};
    ::setrlimit(RLIMIT_DATA, &none);
    writer.begin(memory.backend(), memory.pieces(), sample_state(20));
    writer.wait();
    return writer.state() == CheckpointWriter::State::written ? "fine" : writer.failure();
  });
  EXPECT_EQ(outcome.said, "fine");
}

// It told the seconds of the save before once more.
TEST(Failure, ASaveWithoutMemoryHasCostTheLoopNothing) {
  const Scratch scratch;
  const auto outcome = in_child([&](int) -> std::string {
    const std::vector<SampleTensor> large = {{"large", {16 << 20}, DType::f32, Spread::replicated}};
    SampleRank small_memory(0, 1, few_tensors()), memory(0, 1, large);
    CheckpointWriter writer(options_for(scratch.root(), 1));
    writer.begin(small_memory.backend(), small_memory.pieces(), sample_state(10));
    writer.wait();
    if (writer.stall_seconds() <= 0) return "the first cost nothing";
    writer.release();
    const rlimit small{(32 << 20), RLIM_INFINITY};
    ::setrlimit(RLIMIT_DATA, &small);
    writer.begin(memory.backend(), memory.pieces(), sample_state(20));
    if (writer.state() != CheckpointWriter::State::failed) return "not failed";
    return writer.stall_seconds() == 0 ? "fine" : fmt::format("{} s", writer.stall_seconds());
  });
  EXPECT_EQ(outcome.said, "fine");
}
#endif

}  // namespace smlp::test
