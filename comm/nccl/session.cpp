#include "comm/nccl/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <utility>

#include "core/error.h"
#include "tensor/cuda/check.h"
#include "tensor/cuda/stream.h"

namespace smlp {

namespace {

using namespace std::chrono_literals;
constexpr auto look_every = 100ms;
constexpr auto call_ends_within = 1s;   // a call that does not is left alone
constexpr auto error_told_within = 5s;  // by the loop; then the job is ended without it

std::string words(ncclResult_t status) {
  const char* last = ncclGetLastError(nullptr);
  const bool more = last != nullptr && *last != '\0';
  return fmt::format("{}{}{}; NCCL_DEBUG=INFO tells more", ncclGetErrorString(status), more ? ": " : "",
                     more ? last : "");
}

// One after another, each may wait for what the next has on the device.
void abort_together(const std::vector<ncclComm_t>& comms) {
  constexpr bool may_be_grouped = NCCL_VERSION_CODE >= NCCL_VERSION(2, 22, 0);
  if (may_be_grouped) ncclGroupStart();
  for (const ncclComm_t comm : comms) {
    if (comm != nullptr) ncclCommAbort(comm);
  }
  if (may_be_grouped) ncclGroupEnd();
}

}  // namespace

void check_nccl(ncclResult_t status, const char* call, const Communicator& group) {
  if (status == ncclSuccess) return;
  const auto said = words(status);
  const auto sentence = fmt::format("{} failed on rank {} of {}: NCCL: {}", call, group.rank(), group.size(), said);
  if (said.find("out of memory") == std::string::npos) throw Error(ExitCode::fault, sentence);
  throw Error(ExitCode::unavailable,
              sentence + "; NCCL takes memory of the GPU beside what `smlp plan` counts: use a smaller micro-batch or more ranks");
}

NcclSession::NcclSession(std::shared_ptr<Communicator> host) : host_(std::move(host)) {
  cuda::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "no stream could be made for NCCL");
  cuda::check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "no event could be made for NCCL");
  thread_ = std::jthread([this](const std::stop_token& stop) { watch(stop); });
}

NcclSession::~NcclSession() {
  std::jthread ender;
  {
    const std::lock_guard lock(mutex_);
    ender = std::move(ender_);
  }
  if (ender.joinable()) ender.join();  // the thread ends the job if this takes too long
  thread_.request_stop();
  thread_.join();
  cudaEventDestroy(event_);
  cudaStreamDestroy(stream_);
}

void NcclSession::after(Backend& backend) {
  cuda::check(cudaEventRecord(event_, cuda::stream_of(backend)), "the backend's work could not be marked for NCCL");
  cuda::check(cudaStreamWaitEvent(stream_, event_, 0), "NCCL could not be put behind the backend's work");
}

void NcclSession::before(Backend& backend) {
  cuda::check(cudaEventRecord(event_, stream_), "NCCL's work could not be marked for the backend");
  cuda::check(cudaStreamWaitEvent(cuda::stream_of(backend), event_, 0),
              "the backend could not be put behind NCCL's work");
}

void NcclSession::add(Group& group, ncclComm_t comm) {
  const std::lock_guard lock(mutex_);
  group.comm = comm;
  groups_.push_back(&group);
}

ncclComm_t NcclSession::comm_of(const Group& group) {
  const std::lock_guard lock(mutex_);
  if (failed_) throw Error(ExitCode::fault, failure_);
  return group.comm;
}

void NcclSession::leave(Group& group) {
  ncclComm_t comm = nullptr;
  {
    const std::lock_guard lock(mutex_);
    std::erase(groups_, &group);
    comm = std::exchange(group.comm, nullptr);
  }
  if (comm == nullptr) return;
  // Peers of a rank that unwinds may never come to the end that both must agree on.
  if (std::uncaught_exceptions() > 0) {
    ncclCommAbort(comm);
  } else {
    ncclCommDestroy(comm);
  }
}

void NcclSession::expect_sound() {
  if (!failed_) return;
  const std::lock_guard lock(mutex_);
  throw Error(ExitCode::fault, failure_);
}

void NcclSession::watch(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    wake_.wait_for(lock, stop, look_every, [] { return false; });
    for (const Group* group : groups_) {
      ncclResult_t found = ncclSuccess;
      const ncclResult_t asked = ncclCommGetAsyncError(group->comm, &found);
      if (asked != ncclSuccess) found = asked;
      if (found == ncclSuccess || found == ncclInProgress) continue;
      fail(*group, found);  // the group may be gone when its rank has been told
      wake_.wait_for(lock, stop, error_told_within, [] { return false; });
      if (stop.stop_requested()) return;
      fmt::print(stderr, "{}\n", failure_);
      std::fflush(stderr);
      host_->abort(static_cast<int>(ExitCode::fault));
    }
  }
}

void NcclSession::fail(const Group& group, ncclResult_t found) {
  const Communicator& owner = *group.owner;
  failure_ = fmt::format("NCCL failed on rank {} of {}, in {} (call {} of this group) or just before it: {}",
                         owner.rank(), owner.size(), group.call.load(), group.number.load(), words(found));
  failed_ = true;
  ender_ = std::jthread([this] { end_all(); });
}

// The loop may wait for what NCCL has on the device and will never be done.
void NcclSession::end_all() {
  std::vector<ncclComm_t> comms;
  {
    const std::lock_guard lock(mutex_);
    for (Group* group : groups_) comms.push_back(std::exchange(group->comm, nullptr));
  }
  const std::unique_lock calling(calling_, call_ends_within);
  if (!calling.owns_lock()) return;
  abort_together(comms);
}

}  // namespace smlp
