// A rank of nccl_death_test: NCCL loses the peers of rank 1 behind its back, at its second call.
#include <fmt/format.h>
#include <unistd.h>

#include <string>

#include "comm/communicator.h"
#include "core/error.h"
#include "tests/cuda_emulation/fake_nccl.h"

namespace smlp {
namespace {

struct Rank {
  std::unique_ptr<Backend> backend = make_cuda_backend();
  std::unique_ptr<Communicator> comm = make_nccl(make_mpi_world(), *backend);
  TensorView view{backend->allocate(16), {4}, DType::f32};

  void sum() { sum(*comm); }
  void sum(Communicator& group) {
    group.after(*backend);
    group.all_reduce(view, Reduce::sum);
    group.before(*backend);
  }
  void lose_peers() {
    if (comm->rank() == 1) emulation::fail_nccl_operation(2);
    sum();
    sum();
  }
  void wait(bool by_the_host = false) {
    backend->synchronize();  // rank 1: for ever, unless NCCL's work is given up
    if (comm->rank() == 1) fmt::print(stderr, "the loop goes on, aborted: {}\n", emulation::nccl_was_aborted());
    for (;;) by_the_host ? comm->barrier() : sum();
  }
};

// The loop waits for the device, is let go, and hears of it at its next call, which may be one of the host's.
void tell(bool by_the_host) {
  Rank rank;
  try {
    rank.lose_peers();
    rank.wait(by_the_host);
  } catch (const Error& error) {
    fmt::print(stderr, "told: {}\n", error.what());
    rank.comm->abort(static_cast<int>(error.code()));
  }
}

// Nobody catches it before the communicators are gone.
void unwind() {
  Rank rank;
  rank.lose_peers();
  rank.wait();
}

// Nor does NCCL let go of anything, and no communicator is left when the thread ends the job.
void unwind_from_a_hang() {
  emulation::hang_in_nccl_abort();
  Rank rank;
  const auto group = rank.comm->split(0, rank.comm->rank());
  if (group->rank() == 1) emulation::fail_nccl_operation(1);
  rank.sum(*group);
  for (;;) group->rank() == 1 ? group->connect() : rank.sum(*group);  // until rank 1 is told
}

// The loops are elsewhere and never come back.
void stay_away() {
  Rank rank;
  rank.comm->rank() == 1 ? rank.lose_peers() : rank.sum();
  for (;;) pause();
}

}  // namespace
}  // namespace smlp

int main(int, char** argv) {
  alarm(50);  // nothing is left behind, whatever happens
  const std::string way = argv[1];
  try {
    if (way == "tell") smlp::tell(false);
    if (way == "tell_by_the_host") smlp::tell(true);
    if (way == "unwind") smlp::unwind();
    if (way == "unwind_from_a_hang") smlp::unwind_from_a_hang();
    if (way == "stay_away") smlp::stay_away();
  } catch (const smlp::Error&) {
    for (;;) pause();  // never reached: the last communicator ended the job
  }
  return 0;
}
