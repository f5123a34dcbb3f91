#include "worker/drill_faults.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string_view>

#include "checkpoint/disk.h"
#include "checkpoint/names.h"
#include "core/clock.h"
#include "core/error.h"

namespace smlp {

namespace {

namespace fs = std::filesystem;

constexpr double drill_patience = 10, look_seconds = 0.001;

bool takes_room(std::string_view operation) {
  constexpr std::array<std::string_view, 4> those = {"make folder", "create file", "reserve space", "write"};
  return std::find(those.begin(), those.end(), operation) != those.end();
}

// Not what the next step computes anew: in half precision that is the copy, and the master is what stays.
const Piece* lasting_replica(std::span<const Piece> pieces) {
  const Piece* found = nullptr;
  for (const auto& piece : pieces) {
    if (piece.local.size() != piece.global_shape.size()) continue;
    const bool master = piece.name.starts_with("adam.master/"), parameter = piece.name.find('/') == std::string::npos;
    if (master) return &piece;
    if (parameter && found == nullptr) found = &piece;
  }
  return found;
}

}  // namespace

std::atomic<DrillFaults*> DrillFaults::at_the_disk = nullptr;

std::unique_ptr<DrillFaults> DrillFaults::of_environment(const RunDirectory& run, int attempt, int rank,
                                                         std::int64_t save_every) {
  const char* named = std::getenv(DrillFolder::variable);
  if (named == nullptr) return nullptr;
  std::error_code absent;
  if (!fs::equivalent(named, DrillFolder(run).path(), absent) || absent) {
    throw Error(ExitCode::configuration,
                fmt::format("the environment has {} = {}, which is no drill of this run: unset it, faults are for `smlp "
                            "drill` alone", DrillFolder::variable, named));
  }
  return std::make_unique<DrillFaults>(run, attempt, rank, save_every);
}

DrillFaults::DrillFaults(const RunDirectory& run, int attempt, int rank, std::int64_t save_every)
    : run_(run), folder_(run), attempt_(attempt), rank_(rank), save_every_(save_every) {
  for (const auto& fault : folder_.plan()) {
    if (fault.rank == rank && by_rank(fault.kind) && !folder_.struck(fault.number)) mine_.push_back(fault);
  }
  at_the_disk = this;
  fault_point = [](const char* operation) {
    if (auto* faults = at_the_disk.load()) faults->on_disk(operation);
  };
}

// The trainer's writer is gone by now.
DrillFaults::~DrillFaults() {
  fault_point = nullptr;
  at_the_disk = nullptr;
}

const Fault* DrillFaults::due(FaultKind kind) const {
  for (const auto& fault : mine_) {
    if (fault.kind == kind && step_ >= fault.step && folder_.is_turn(fault.number) && !folder_.struck(fault.number)) {
      return &fault;
    }
  }
  return nullptr;
}

bool DrillFaults::strike(const Fault& fault) const {
  if (!folder_.strike(fault.number, {step_, attempt_, unix_seconds()})) return false;
  spdlog::warn("drill: fault {} strikes in step {}: {}", fault.number, step_.load(), describe(fault.kind));
  return true;
}

void DrillFaults::stay_in_sight(std::int64_t step, const std::function<void()>& wait) {
  if (rank_ != 0 || out_of_sight_) return;
  const double end = monotonic_seconds() + drill_patience;
  while (step > folder_.seen() + most_unseen_steps) {
    if (monotonic_seconds() > end) {
      out_of_sight_ = true;
      spdlog::warn("drill: nobody has seen step {} for {} s; training goes on unseen", step - most_unseen_steps, drill_patience);
      return;
    }
    wait();
    sleep_seconds(look_seconds);
  }
}

void DrillFaults::in_step(std::int64_t step, Backend& backend, ParameterStore& store) {
  step_ = step;
  if (mine_.empty()) return;
  if (const auto* fault = due(FaultKind::slow); fault != nullptr && strike(*fault)) {
    slow_until_ = step + slow_steps - 1;
    slow_seconds_ = fault->seconds;
  }
  if (step <= slow_until_ && slept_ != step) {
    slept_ = step;
    sleep_seconds(slow_seconds_);
  }
  if (const auto* fault = due(FaultKind::nan); fault != nullptr && strike(*fault)) poisoned_ = true;
  if (!poisoned_) return;
  const TensorView first(store.parameters().front().grad.data, {1}, store.parameters().front().grad.dtype);
  backend.fill(first, std::numeric_limits<double>::quiet_NaN());
}

void DrillFaults::after_update(std::int64_t step, Backend& backend, std::span<const Piece> pieces) {
  step_ = step;
  const auto* fault = due(FaultKind::bit_flip);
  const auto* piece = fault == nullptr ? nullptr : lasting_replica(pieces);
  if (piece == nullptr || !strike(*fault)) return;
  const auto bytes = size_of(piece->local.dtype);
  const auto element = static_cast<std::int64_t>(fault->fraction * static_cast<double>(piece->local.size()));
  const TensorView one(static_cast<std::byte*>(piece->local.data) + element * static_cast<std::int64_t>(bytes), {1},
                       piece->local.dtype);
  std::array<std::byte, 8> value{};
  backend.download(one, value.data());
  value.at(bytes / 2) ^= std::byte{4};  // of the fraction, in every type that is stored
  backend.upload(value.data(), one);
  spdlog::warn("drill: a bit of element {} of '{}' is flipped", element, piece->name);
}

void DrillFaults::on_disk(const char* operation) {
  if (mine_.empty()) return;
  if (std::string_view(operation) == "sync file") {
    if (const auto* fault = due(FaultKind::torn_write); fault != nullptr && strike(*fault)) cut_off_my_shard();
  }
  if (!takes_room(operation)) return;
  if (const auto* fault = due(FaultKind::full_disk); fault != nullptr && strike(*fault)) {
    full_until_ = step_ + save_every_;
  }
  if (step_ < full_until_) {
    throw Error(ExitCode::io_failed, fmt::format("{} failed: {} (a drill)", operation, std::strerror(ENOSPC)));
  }
}

// As if the power had failed between two blocks: what was written so far is there, this process is not.
void DrillFaults::cut_off_my_shard() const {
  std::error_code ignored;
  for (const auto& entry : entries_of(run_.checkpoints())) {
    const auto shard = entry / shard_name(rank_);
    const auto size = is_temporary(entry.filename().string()) ? fs::file_size(shard, ignored) : 0;
    if (size > 0 && !ignored) fs::resize_file(shard, size / 2, ignored);
  }
  ::kill(::getpid(), SIGKILL);
}

}  // namespace smlp
