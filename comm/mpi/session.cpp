#include "comm/mpi/session.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <exception>
#include <string>

#include "core/error.h"

namespace smlp {

namespace {
constexpr unsigned abort_seconds = 10;  // MPI_Abort may itself wait for a peer that no longer answers
}  // namespace

std::shared_ptr<MpiSession> MpiSession::get() {
  static std::weak_ptr<MpiSession> alive;
  auto session = alive.lock();
  if (!session) {
    session.reset(new MpiSession);
    alive = session;
  }
  return session;
}

MpiSession::MpiSession() {
  int finalised = 0;
  MPI_Finalized(&finalised);
  expect(finalised == 0,
         "MPI was finalised when the last communicator died and can't start again in this process");
  // A rank that waits lets others run: with more ranks than cores, spinning makes a collective take
  // milliseconds.
  setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
  int provided = 0;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread", 0, 0);
  if (provided < MPI_THREAD_FUNNELED) {
    throw Error(
        ExitCode::unavailable,
        "this MPI library does not allow threads beside the one that talks (MPI_THREAD_FUNNELED): use Open "
        "MPI 4 or later");
  }
}

MpiSession::~MpiSession() {
  if (std::uncaught_exceptions() > 0) abort(static_cast<int>(ExitCode::fault));
  MPI_Finalize();
}

void MpiSession::abort(int status) noexcept {
  static std::atomic_flag begun = ATOMIC_FLAG_INIT;
  if (begun.test_and_set()) {
    for (;;) pause();  // another thread is at it and ends this one too
  }
  signal(SIGALRM, SIG_DFL);
  alarm(abort_seconds);
  int initialised = 0, finalised = 0;
  MPI_Initialized(&initialised);
  MPI_Finalized(&finalised);
  if (initialised != 0 && finalised == 0) MPI_Abort(MPI_COMM_WORLD, status);
  std::_Exit(status);
}

void check_mpi(int status, const char* call, int rank, int ranks) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(status, text, &length);
  throw Error(ExitCode::fault, fmt::format("{} failed on rank {} of {}: {}", call, rank, ranks,
                                           std::string(text, static_cast<std::size_t>(length))));
}

}  // namespace smlp
