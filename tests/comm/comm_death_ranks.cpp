// A rank of comm_death_test: rank 1 fails in the way it is told, while the others wait for it in a
// collective.
#include <fmt/format.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "comm/communicator.h"
#include "core/error.h"

namespace smlp {
namespace {

void wait_for_ever(Communicator& world) {
  for (;;) world.barrier();
}

// The exception unwinds past the communicators while the peers are in a barrier.
void unwind() {
  auto grid = ProcessGrid::cut(make_mpi_world(), 1);
  if (grid.world->rank() == 1) throw Error(ExitCode::bad_data, "rank 1 found a corrupt file");
  wait_for_ever(*grid.world);
}

void abort_with(int status) {
  auto world = make_mpi_world();
  if (world->rank() == 1) world->abort(status);
  wait_for_ever(*world);
}

// Rank 0 waits in a barrier that nobody else enters; its watchdog ends the job.
void abort_from_a_thread() {
  auto world = make_mpi_world();
  if (world->rank() == 0) {
    std::jthread watchdog([&] {
      usleep(200'000);
      world->abort(71);
    });
    world->barrier();
  }
  for (;;) pause();
}

// Ranks that disagree about the size of a message get a sentence, not a crash.
void disagree() {
  auto world = make_mpi_world();
  try {
    std::vector<float> in(64), out(64);
    const std::int64_t sent = world->rank() == 0 ? 8 : 2;
    const std::vector<std::int64_t> rows_to = {world->rank() == 0 ? 2 : sent, world->rank() == 0 ? sent : 2};
    const std::vector<std::int64_t> rows_from = {2, 2};
    world->all_to_all(TensorView(in.data(), {16, 4}, DType::f32), rows_to,
                      TensorView(out.data(), {16, 4}, DType::f32), rows_from);
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    world->abort(static_cast<int>(error.code()));
  }
  wait_for_ever(*world);
}

}  // namespace
}  // namespace smlp

int main(int, char** argv) {
  alarm(30);  // nothing is left behind, whatever happens
  const std::string way = argv[1];
  try {
    if (way == "unwind") smlp::unwind();
    if (way == "abort") smlp::abort_with(76);
    if (way == "thread") smlp::abort_from_a_thread();
    if (way == "disagree") smlp::disagree();
  } catch (const smlp::Error&) {
    for (;;) pause();  // never reached: the last communicator ended the job
  }
  return 0;
}
