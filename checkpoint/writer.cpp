#include <fmt/format.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#include "checkpoint/checkpoint.h"
#include "checkpoint/disk.h"
#include "checkpoint/names.h"
#include "checkpoint/publish.h"
#include "checkpoint/shard.h"
#include "core/error.h"

namespace smlp {

namespace fs = std::filesystem;

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Signals are the loop's. With SIGXFSZ blocked, a file that meets its size limit is an error like a full disk,
// not the end of the process.
void leave_signals_to_the_loop() {
  sigset_t signals;
  sigfillset(&signals);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) sigdelset(&signals, fault);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

// For what must not fail because it cleans up after a failure.
template <class Action>
void quietly(const Action& action) noexcept {
  try {
    action();
  } catch (...) {
  }
}

}  // namespace

struct CheckpointWriter::Impl {
  // What begin() takes: enough to write the shard, and to write it again elsewhere.
  struct Snapshot {
    RunState run_state;
    ShardPlan plan;
    Staging staging;
    Backend* device = nullptr;  // that may still be copying
    bool taken = false;
  };

  // The loop's; the thread reads them while it runs.
  const WriterOptions options;
  std::int64_t step = 0;
  fs::path folder;
  Snapshot snapshot;
  double stall_seconds = 0;

  // Shared.
  std::atomic<State> state = State::idle;
  std::atomic<double> write_seconds = 0;
  std::atomic<std::int64_t> written_bytes = 0;
  std::atomic<bool> superseded = false;
  DiskWatch disk;
  std::mutex mutex;
  std::string failure, note;

  std::jthread thread;

  explicit Impl(WriterOptions o) : options(std::move(o)) {}

  void tell(State next, const std::string& about_failure, const std::string& about = "") {
    {
      const std::lock_guard lock(mutex);
      failure = about_failure;
      note = about;
    }
    state.store(next, std::memory_order_release);
  }

  void fail(const std::string& reason) {
    tell(State::failed,
         fmt::format("the checkpoint of step {} failed on rank {}: {}", step, options.rank, reason));
  }

  // The folder stays until all ranks know: a peer may have made it, and not its file yet.
  void remove_my_files() noexcept {
    quietly([&] { remove_file(folder / sidecar_name(options.rank)); });
    quietly([&] { remove_file(folder / shard_name(options.rank)); });
  }

  void write(std::stop_token stop) {
    const auto start = std::chrono::steady_clock::now();
    leave_signals_to_the_loop();
    const DiskWatch::Work work(disk, step);
    try {
      if (snapshot.device != nullptr) snapshot.device->wait_for_downloads();
      make_folder(folder);
      write_shard(folder, snapshot.plan, snapshot.staging, std::move(stop));
      written_bytes = snapshot.plan.sidecar.shard.size;
      write_seconds = seconds_since(start);
      tell(State::written, "");
    } catch (const WritingStopped&) {
      remove_my_files();
      fail("it was given up");
    } catch (const std::exception& error) {
      remove_my_files();
      fail(error.what());
    }
  }

  void publish() {
    leave_signals_to_the_loop();
    const DiskWatch::Work work(disk, step);
    try {
      tell(State::published, "", publish_checkpoint(options, folder, step, snapshot.run_state));
    } catch (const std::exception& error) {
      quietly([&] { remove_folder(folder); });
      const auto* of_smlp = dynamic_cast<const Error*>(&error);
      superseded = of_smlp != nullptr && of_smlp->code() == ExitCode::call_again;
      fail(error.what());
    }
  }

  void join() {
    if (thread.joinable()) thread.join();
  }

  void open_save(std::int64_t of_step) {
    expect(state == State::idle, "checkpoint: begin() before the last save was released");
    join();
    step = of_step;
    folder = options.root / (options.local ? local_name(step, options.attempt) : temporary_name(step, options.attempt));
  }

  void start_writing() {
    tell(State::writing, "");
    start([this](std::stop_token stop) { write(std::move(stop)); });
  }

  // A save that gets no thread has failed, and ends nothing else.
  template <class Work>
  void start(Work work) {
    try {
      thread = std::jthread(std::move(work));
    } catch (const std::system_error& error) {
      fail(fmt::format("no thread could be started for it: {}", error.what()));
    }
  }

  // What this rank leaves behind of a save that wasn't published. Shards that others may still publish stay.
  void clean_up() noexcept {
    if (state == State::published || state == State::idle) return;
    if (options.local) remove_my_files();
    if (options.rank == 0 && !options.local) quietly([&] { remove_folder(folder); });
    remove_if_empty(folder);
  }
};

CheckpointWriter::CheckpointWriter(WriterOptions options)
    : impl_(std::make_unique<Impl>(std::move(options))) {
  if (impl_->options.rank == 0 && !impl_->options.local) quietly([&] { raise_fence(impl_->options.root, impl_->options.attempt); });
}

CheckpointWriter::~CheckpointWriter() {
  if (impl_->options.local && impl_->state == State::written) publish();  // the other ranks' may be there as well
  release();
}

void CheckpointWriter::prepare(Backend& backend, std::span<const Piece> pieces) {
  if (backend.in_host_memory()) return;
  try {
    impl_->snapshot.staging.reserve(backend, staged_bytes(pieces));
  } catch (const std::bad_alloc&) {
  }
}

void CheckpointWriter::begin(Backend& backend, std::span<const Piece> pieces, const RunState& state) {
  const auto start = std::chrono::steady_clock::now();
  auto& my = *impl_;
  auto& snapshot = my.snapshot;
  my.open_save(state.integer("step"));
  my.stall_seconds = 0;
  snapshot.taken = false;
  snapshot.run_state = state;
  snapshot.plan = plan_shard(pieces, my.options, state);
  try {
    snapshot.staging.reserve(backend, snapshot.plan.bytes);
  } catch (const std::bad_alloc&) {
    my.fail(fmt::format("there are no {} bytes of host memory for its copy", snapshot.plan.bytes));
    return;
  }
  std::vector<Download> downloads;
  downloads.reserve(snapshot.plan.parts.size());
  for (const auto& part : snapshot.plan.parts) {
    downloads.push_back({pieces[part.piece].local, snapshot.staging.part(part.staged, part.bytes).data()});
  }
  backend.start_downloads(downloads);
  snapshot.device = backend.in_host_memory() ? nullptr : &backend;
  snapshot.taken = true;
  my.start_writing();
  my.stall_seconds = seconds_since(start);
}

void CheckpointWriter::take_over(CheckpointWriter& other) {
  auto &my = *impl_, &its = *other.impl_;
  expect(its.state != State::idle, "checkpoint: there is no copy to take over");
  its.thread.request_stop();
  its.join();
  my.open_save(its.step);
  std::swap(my.snapshot, its.snapshot);
  my.stall_seconds = 0;
  if (my.snapshot.taken) {
    my.start_writing();
  } else {
    my.fail("there was no host memory for its copy");
  }
}

CheckpointWriter::State CheckpointWriter::state() const {
  return impl_->state.load(std::memory_order_acquire);
}

bool CheckpointWriter::superseded() const { return impl_->superseded; }

std::string CheckpointWriter::failure() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->failure;
}

std::string CheckpointWriter::note() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->note;
}

void CheckpointWriter::publish() {
  auto& my = *impl_;
  expect(my.options.local || my.options.rank == 0, "checkpoint: publish() is rank 0's");
  expect(my.state == State::written, "checkpoint: publish() before the shard was written");
  my.join();
  if (my.options.local) return my.tell(State::published, "");
  my.tell(State::publishing, "");
  my.start([&my] { my.publish(); });
}

void CheckpointWriter::release() {
  auto& my = *impl_;
  const bool unfinished = my.state == State::writing;  // nobody has been told that this shard is there
  my.thread.request_stop();
  my.join();
  if (unfinished) my.remove_my_files();
  my.clean_up();
  my.state = State::idle;
}

void CheckpointWriter::wait() { impl_->join(); }

double CheckpointWriter::stall_seconds() const { return impl_->stall_seconds; }
double CheckpointWriter::write_seconds() const { return impl_->write_seconds; }
std::int64_t CheckpointWriter::written_bytes() const { return impl_->written_bytes; }
std::optional<DiskWait> CheckpointWriter::waits_for_disk() const { return impl_->disk.wait(); }

}  // namespace smlp
