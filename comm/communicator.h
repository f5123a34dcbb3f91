// A group of ranks that talk in step. Collective calls come in the same order on every member and are
// *ordered*, not finished, when they return:
//   comm.after(backend);     // my next calls wait for what `backend` has enqueued
//   comm.all_reduce(..);
//   comm.before(backend);    // what `backend` enqueues next waits for my calls
// MPI and one rank: calls are finished when they return, and the two are empty. A Communicator is used by one thread.
// Views are contiguous. Sums are taken in the views' type (f64, f32, i64; with NCCL also bf16 and f16), in a fixed order
// for a fixed layout.
// Errors: a failed call throws Error(fault) naming the collective and the rank; peers are ended by abort().
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tensor/backend.h"

namespace smlp {

enum class Reduce : std::uint8_t { sum, max };

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;

  virtual void after(Backend&) {}
  virtual void before(Backend&) {}
  // What collectives of views need is taken now, and not by the first of them, when memory may be short. Every member calls it.
  virtual void connect() {}

  virtual void all_reduce(TensorView inout, Reduce op) = 0;
  // Rank p's `out` is the sum of all ranks' p-th parts of `in`, which has size() equal parts. `out` may be this rank's own
  // part of `in`; the other parts of `in` are then of no more use.
  virtual void reduce_scatter(TensorView in, TensorView out) = 0;
  // The p-th part of `out` is rank p's `in`, which may be that part already.
  virtual void all_gather(TensorView in, TensorView out) = 0;
  virtual void broadcast(TensorView inout, int root) = 0;
  // Rows of `in` are grouped by destination, rows of `out` by source: rows_to[p] rows go to rank p and
  // rows_from[p] come from it; zero allowed. A row is everything beneath dimension 0.
  virtual void all_to_all(TensorView in, std::span<const std::int64_t> rows_to, TensorView out,
                          std::span<const std::int64_t> rows_from) = 0;

  // Small things of the host, for agreement and bookkeeping.
  virtual void all_reduce_host(std::span<double> inout, Reduce op) = 0;
  virtual void all_to_all_host(std::span<const std::int64_t> in, std::span<std::int64_t> out) = 0;  // one block a rank
  virtual std::vector<std::vector<std::byte>> gather_bytes(std::span<const std::byte> mine, int root) = 0;  // empty but on root
  virtual void broadcast_bytes(std::vector<std::byte>& inout, int root) = 0;
  virtual void barrier() = 0;

  // A message between two ranks that travels while the loop goes on; on a group that is used for nothing else. Its bytes
  // stay where they are, untouched, until done() has said true. Both sides give the same size; messages from one rank to
  // another come in the order in which they were started. Never given up halfway: it is asked until it is done.
  class Transfer {
   public:
    virtual ~Transfer() = default;
    virtual bool done() = 0;  // does not wait
  };
  virtual std::unique_ptr<Transfer> start_send(std::span<const std::byte> bytes, int to) = 0;
  virtual std::unique_ptr<Transfer> start_receive(std::span<std::byte> bytes, int from) = 0;

  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;
  // Ends every rank of the job at once with this exit status. Callable from any thread.
  [[noreturn]] virtual void abort(int status) noexcept = 0;

  // For reports of hangs, readable from any thread: the collective sequence number and the call it belongs to.
  std::int64_t calls() const noexcept { return calls_.load(std::memory_order_relaxed); }
  const char* last_call() const noexcept { return last_call_.load(std::memory_order_relaxed); }
  bool inside() const noexcept { return inside_.load(std::memory_order_relaxed); }  // a call is under way
  double take_longest() noexcept { return std::exchange(longest_, 0.0); }  // seconds of one call, since it was last asked
  std::int64_t bytes_sent() const noexcept { return bytes_sent_; }  // payload passed to other ranks so far

 protected:
  // Open for the time of one collective: counts the call, what it sends and how long it takes.
  class Call {
   public:
    Call(Communicator& owner, const char* name, std::int64_t bytes) noexcept : owner_(owner) {
      owner_.calls_.fetch_add(1, std::memory_order_relaxed);
      owner_.last_call_.store(name, std::memory_order_relaxed);
      owner_.inside_.store(true, std::memory_order_relaxed);
      owner_.bytes_sent_ += bytes;
    }
    ~Call() {
      const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
      owner_.longest_ = std::max(owner_.longest_, took);
      owner_.inside_.store(false, std::memory_order_relaxed);
    }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

   private:
    Communicator& owner_;
    std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  };
  void add_bytes_sent(std::int64_t bytes) noexcept { bytes_sent_ += bytes; }  // where a call learns it late
  // The part of `whole` that is this rank's, shaped as `part`; throws where size() such parts don't make up `whole`.
  TensorView own_part(const TensorView& whole, const TensorView& part, const char* call) const;

 private:
  std::atomic<std::int64_t> calls_ = 0;
  std::atomic<const char*> last_call_ = "none";
  std::int64_t bytes_sent_ = 0;
  std::atomic<bool> inside_ = false;
  double longest_ = 0;
};

// One rank: copies, through the backend that owns the memory.
std::unique_ptr<Communicator> make_solo(Backend& backend);
// All ranks that mpirun or srun started; initialises MPI (once) and finalises it when the last communicator dies.
// comm/mpi/mpi.cpp, for CPU memory; a build without MPI links comm/no_mpi.cpp, which says so in an Error.
// Peers may be waiting in a collective, so an exception that unwinds past the last communicator ends the whole job
// with status 70 instead of finalising: catch it, report it and call abort() while a communicator is still alive.
// Single messages hold at most `largest_message_bytes`; longer ones are cut into pieces.
std::unique_ptr<Communicator> make_mpi_world(std::int64_t largest_message_bytes = std::int64_t{1} << 30);

// The ranks of `host`, which moves memory of the host, for memory of `backend`: comm/staged.cpp. The backend outlives it.
std::unique_ptr<Communicator> make_staged(std::unique_ptr<Communicator> host, Backend& backend);
// The ranks of `host`, each with a GPU of its own that `backend` computes on: NCCL on a stream of its own, shared with
// what is split off. comm/nccl; a build without NCCL links comm/no_nccl.cpp, which says so in an Error. An error that
// NCCL meets later is an Error of the next call, and ends the job where no call comes.
std::unique_ptr<Communicator> make_nccl(std::unique_ptr<Communicator> host, Backend& backend);

// The three groups a mixture of experts needs, cut once at start-up.
struct ProcessGrid {
  std::unique_ptr<Communicator> world;     // all ranks: dense gradients, loss, agreement
  std::unique_ptr<Communicator> experts;   // ranks that together hold every expert: token exchange
  std::unique_ptr<Communicator> replicas;  // ranks holding the same experts: expert gradients

  // expert_ranks consecutive ranks form an expert group; it must divide the number of ranks.
  static ProcessGrid cut(std::unique_ptr<Communicator> world, int expert_ranks);
};

}  // namespace smlp
