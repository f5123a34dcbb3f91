// NCCL of this process: the one stream that all its groups use, so that their calls run in the order of the program,
// and the thread that looks for errors which show after a call has returned. Such an error ends what NCCL has on the
// device, so that nobody waits for it, and is thrown by the next call of any group; where none comes in time, the
// thread ends the job. Shared by the communicators of comm/nccl and seen by nobody else.
#pragma once

#include <cuda_runtime.h>
#include <nccl.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "comm/communicator.h"

namespace smlp {

class NcclSession {
 public:
  // On the device of the thread that calls. `host`: who ends the job, also when no group is left.
  explicit NcclSession(std::shared_ptr<Communicator> host);
  ~NcclSession();
  NcclSession(const NcclSession&) = delete;
  NcclSession& operator=(const NcclSession&) = delete;

  cudaStream_t stream() const noexcept { return stream_; }
  void after(Backend& backend);
  void before(Backend& backend);

  // What the thread sees of a group that has joined its peers.
  struct Group {
    Communicator* owner = nullptr;
    ncclComm_t comm = nullptr;
    std::atomic<const char*> call = "none";  // the last one of NCCL, and its number
    std::atomic<std::int64_t> number = 0;
  };
  void add(Group& group, ncclComm_t comm);
  void leave(Group& group);  // ends its communicator; nothing where it has none

  void expect_sound();  // throws Error(fault) with what the thread has found
  // Held while NCCL is called, so that nobody ends a communicator under the call.
  std::unique_lock<std::timed_mutex> calling() { return std::unique_lock(calling_); }
  ncclComm_t comm_of(const Group& group);  // throws as expect_sound()

 private:
  void watch(const std::stop_token& stop);
  void fail(const Group& group, ncclResult_t found);
  void end_all();

  std::shared_ptr<Communicator> host_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t event_ = nullptr;
  std::timed_mutex calling_;
  std::mutex mutex_;  // guards what follows
  std::vector<Group*> groups_;
  std::string failure_;
  std::jthread ender_;
  std::condition_variable_any wake_;
  std::atomic<bool> failed_ = false;
  std::jthread thread_;
};

// Throws Error(fault) naming the call, the rank and what NCCL said when `status` is a failure.
void check_nccl(ncclResult_t status, const char* call, const Communicator& group);

}  // namespace smlp
