// Ranks of CPU memory over MPI. Views are followed by address; one thread of the process talks.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <utility>

#include "comm/collective.h"
#include "comm/communicator.h"
#include "comm/mpi/session.h"
#include "core/error.h"

namespace smlp {

namespace {

constexpr std::int64_t reduce_piece_bytes = std::int64_t{512} << 10;  // a rank

MPI_Datatype type_of_sum(DType type) {
  switch (type) {
    case DType::f64:
      return MPI_DOUBLE;
    case DType::f32:
      return MPI_FLOAT;
    case DType::i64:
      return MPI_INT64_T;
    default:
      break;
  }
  throw Error(ExitCode::fault,
              fmt::format("sums over ranks are taken of f64, f32 and i64, not of {}", name_of(type)));
}

MPI_Op op_of(Reduce op) { return op == Reduce::sum ? MPI_SUM : MPI_MAX; }

// Calls piece(first, count) for consecutive pieces of at most `most` of `total` units.
template <class Piece>
void in_pieces(std::int64_t total, std::int64_t most, Piece&& piece) {
  for (std::int64_t first = 0; first < total; first += most) {
    piece(first, static_cast<int>(std::min(most, total - first)));
  }
}

// The requests of one message's pieces.
class MpiTransfer final : public Communicator::Transfer {
 public:
  MpiTransfer(std::vector<MPI_Request> requests, int rank, int size)
      : requests_(std::move(requests)), rank_(rank), size_(size) {}
  bool done() override {
    while (!requests_.empty()) {
      int over = 0;
      check_mpi(MPI_Test(&requests_.back(), &over, MPI_STATUS_IGNORE), "transfer", rank_, size_);
      if (over == 0) return false;
      requests_.pop_back();
    }
    return true;
  }

 private:
  std::vector<MPI_Request> requests_;
  int rank_, size_;
};

class MpiCommunicator final : public Communicator {
 public:
  // Takes over `group`.
  MpiCommunicator(std::shared_ptr<MpiSession> session, MPI_Comm group, std::int64_t largest_message_bytes)
      : session_(std::move(session)), group_(group), piece_bytes_(largest_message_bytes) {
    MPI_Comm_set_errhandler(group_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(group_, &rank_);
    MPI_Comm_size(group_, &size_);
  }
  ~MpiCommunicator() override {
    if (std::uncaught_exceptions() == 0) MPI_Comm_free(&group_);
  }

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }

  void all_reduce(TensorView inout, Reduce op) override;
  void reduce_scatter(TensorView in, TensorView out) override;
  void all_gather(TensorView in, TensorView out) override;
  void broadcast(TensorView inout, int root) override;
  void all_to_all(TensorView in, std::span<const std::int64_t> rows_to, TensorView out,
                  std::span<const std::int64_t> rows_from) override;
  void all_reduce_host(std::span<double> inout, Reduce op) override;
  void all_to_all_host(std::span<const std::int64_t> in, std::span<std::int64_t> out) override;
  std::vector<std::vector<std::byte>> gather_bytes(std::span<const std::byte> mine, int root) override;
  void broadcast_bytes(std::vector<std::byte>& inout, int root) override;
  void barrier() override;
  std::unique_ptr<Transfer> start_send(std::span<const std::byte> bytes, int to) override;
  std::unique_ptr<Transfer> start_receive(std::span<std::byte> bytes, int from) override;
  std::unique_ptr<Communicator> split(int color, int key) override;
  [[noreturn]] void abort(int status) noexcept override { MpiSession::abort(status); }

 private:
  void check(int status, const char* call) const { check_mpi(status, call, rank_, size_); }
  void broadcast_memory(void* memory, std::int64_t bytes, int root, const char* call);
  void start_send(const void* from, std::int64_t bytes, int to, const char* call);
  void start_receive(void* to, std::int64_t bytes, int from, const char* call);
  void finish(const char* call);

  std::shared_ptr<MpiSession> session_;
  MPI_Comm group_;
  std::int64_t piece_bytes_;
  int rank_ = 0, size_ = 1;
  // Of the call that runs; kept so that later ones need no memory.
  std::vector<MPI_Request> requests_;
  std::vector<std::int64_t> send_at_, receive_at_;  // first row for and from each rank
  std::vector<std::byte> terms_;                    // of a piece of a sum, one a rank
};

void MpiCommunicator::all_reduce(TensorView inout, Reduce op) {
  expect(inout.contiguous(), "all_reduce: the view is not contiguous");
  const MPI_Datatype type = type_of_sum(inout.dtype);
  const Call call(*this, "all_reduce", reduce_traffic(inout.bytes(), size_));
  if (size_ == 1) return;
  // Pieces that stay in the caches between the sum and the sharing take half the time of one long call, and
  // the cuts depend on nothing but the layout, so the order of the sums is fixed.
  const std::int64_t most = std::min(piece_bytes_, reduce_piece_bytes * size_) / size_of(inout.dtype);
  in_pieces(inout.size(), most, [&](std::int64_t first, int count) {
    check(MPI_Allreduce(MPI_IN_PLACE, inout.at(first), count, type, op_of(op), group_), "all_reduce");
  });
}

// Every rank sends each other one that one's part and sums its own in the order of the ranks, a piece at a time.
void MpiCommunicator::reduce_scatter(TensorView in, TensorView out) {
  const auto own = own_part(in, out, "reduce_scatter");
  const MPI_Datatype type = type_of_sum(in.dtype);
  const Call call(*this, "reduce_scatter", in.bytes() - out.bytes());
  const std::int64_t most = std::min(piece_bytes_, reduce_piece_bytes) / size_of(in.dtype);
  in_pieces(out.size(), most, [&](std::int64_t first, int count) {
    const std::int64_t bytes = count * size_of(in.dtype);
    if (std::ssize(terms_) < bytes * size_) terms_.resize(static_cast<std::size_t>(bytes * size_));
    const auto term = [&](int rank) { return terms_.data() + rank * bytes; };
    for (int step = 1; step < size_; ++step) {
      const int from = (rank_ - step + size_) % size_;
      start_receive(term(from), bytes, from, "reduce_scatter");
    }
    for (int step = 1; step < size_; ++step) {
      const int to = (rank_ + step) % size_;
      start_send(in.at(to * out.size() + first), bytes, to, "reduce_scatter");
    }
    std::memcpy(term(rank_), own.at(first), static_cast<std::size_t>(bytes));
    finish("reduce_scatter");
    for (int other = 1; other < size_; ++other) {
      check(MPI_Reduce_local(term(other), term(0), count, type, MPI_SUM), "reduce_scatter");
    }
    std::memcpy(out.at(first), term(0), static_cast<std::size_t>(bytes));
  });
}

void MpiCommunicator::all_gather(TensorView in, TensorView out) {
  const auto own = own_part(out, in, "all_gather");
  const Call call(*this, "all_gather", in.bytes() * (size_ - 1));
  for (int step = 1; step < size_; ++step) {
    const int from = (rank_ - step + size_) % size_;
    start_receive(out.at(from * in.size()), in.bytes(), from, "all_gather");
  }
  for (int step = 1; step < size_; ++step) {
    start_send(in.data, in.bytes(), (rank_ + step) % size_, "all_gather");
  }
  if (own.data != in.data && in.size() > 0) std::memcpy(own.data, in.data, static_cast<std::size_t>(in.bytes()));
  finish("all_gather");
}

void MpiCommunicator::broadcast_memory(void* memory, std::int64_t bytes, int root, const char* call) {
  in_pieces(bytes, piece_bytes_, [&](std::int64_t first, int count) {
    check(MPI_Bcast(static_cast<char*>(memory) + first, count, MPI_BYTE, root, group_), call);
  });
}

void MpiCommunicator::broadcast(TensorView inout, int root) {
  expect(inout.contiguous(), "broadcast: the view is not contiguous");
  const Call call(*this, "broadcast", broadcast_traffic(inout.bytes(), size_, rank_ == root));
  broadcast_memory(inout.data, inout.bytes(), root, "broadcast");
}

void MpiCommunicator::start_send(const void* from, std::int64_t bytes, int to, const char* call) {
  in_pieces(bytes, piece_bytes_, [&](std::int64_t first, int count) {
    check(MPI_Isend(static_cast<const char*>(from) + first, count, MPI_BYTE, to, 0, group_,
                    &requests_.emplace_back()),
          call);
  });
}

void MpiCommunicator::start_receive(void* to, std::int64_t bytes, int from, const char* call) {
  in_pieces(bytes, piece_bytes_, [&](std::int64_t first, int count) {
    check(MPI_Irecv(static_cast<char*>(to) + first, count, MPI_BYTE, from, 0, group_,
                    &requests_.emplace_back()),
          call);
  });
}

// One by one: Open MPI 4.1's MPI_Waitall can spin for ever when one of several requests fails.
void MpiCommunicator::finish(const char* call) {
  for (auto& request : requests_) check(MPI_Wait(&request, MPI_STATUS_IGNORE), call);
  requests_.clear();
}

void MpiCommunicator::all_to_all(TensorView in, std::span<const std::int64_t> rows_to, TensorView out,
                                 std::span<const std::int64_t> rows_from) {
  check_exchange(in, rows_to, out, rows_from, rank_, size_);
  const std::int64_t row = row_bytes(in);
  const auto me = static_cast<std::size_t>(rank_);
  send_at_.assign(1, 0);
  receive_at_.assign(1, 0);
  for (std::size_t p = 0; p < rows_to.size(); ++p) {
    send_at_.push_back(send_at_[p] + rows_to[p]);
    receive_at_.push_back(receive_at_[p] + rows_from[p]);
  }
  const Call call(*this, "all_to_all", (send_at_.back() - rows_to[me]) * row);
  const auto source = [&](std::size_t p) { return static_cast<char*>(in.data) + send_at_[p] * row; };
  const auto target = [&](std::size_t p) { return static_cast<char*>(out.data) + receive_at_[p] * row; };
  // Each rank begins with its neighbour, so that no rank is everybody's first target. The part that stays is
  // copied while the others travel.
  for (int step = 1; step < size_; ++step) {
    const auto from = static_cast<std::size_t>((rank_ - step + size_) % size_);
    start_receive(target(from), rows_from[from] * row, static_cast<int>(from), "all_to_all");
  }
  for (int step = 1; step < size_; ++step) {
    const auto to = static_cast<std::size_t>((rank_ + step) % size_);
    start_send(source(to), rows_to[to] * row, static_cast<int>(to), "all_to_all");
  }
  if (rows_to[me] > 0) std::memcpy(target(me), source(me), static_cast<std::size_t>(rows_to[me] * row));
  finish("all_to_all");
}

void MpiCommunicator::all_reduce_host(std::span<double> inout, Reduce op) {
  const Call call(*this, "all_reduce_host", reduce_traffic(static_cast<std::int64_t>(inout.size_bytes()), size_));
  check(MPI_Allreduce(MPI_IN_PLACE, inout.data(), static_cast<int>(inout.size()), MPI_DOUBLE, op_of(op),
                      group_),
        "all_reduce_host");
}

void MpiCommunicator::all_to_all_host(std::span<const std::int64_t> in, std::span<std::int64_t> out) {
  const auto ranks = static_cast<std::size_t>(size_);
  expect(in.size() == out.size() && in.size() % ranks == 0,
         "all_to_all_host: both sides hold one block a rank");
  const std::size_t block = in.size() / ranks;
  const Call call(*this, "all_to_all_host", static_cast<std::int64_t>((ranks - 1) * block * sizeof in[0]));
  const int count = static_cast<int>(block);
  check(MPI_Alltoall(in.data(), count, MPI_INT64_T, out.data(), count, MPI_INT64_T, group_),
        "all_to_all_host");
}

std::vector<std::vector<std::byte>> MpiCommunicator::gather_bytes(std::span<const std::byte> mine, int root) {
  const auto bytes = static_cast<std::int64_t>(mine.size());
  const Call call(*this, "gather_bytes", rank_ == root ? 0 : bytes);
  std::vector<std::int64_t> sizes(rank_ == root ? static_cast<std::size_t>(size_) : 0);
  check(MPI_Gather(&bytes, 1, MPI_INT64_T, sizes.data(), 1, MPI_INT64_T, root, group_), "gather_bytes");
  std::vector<std::vector<std::byte>> all(sizes.size());
  if (rank_ != root) start_send(mine.data(), bytes, root, "gather_bytes");
  for (std::size_t p = 0; p < all.size(); ++p) {
    if (static_cast<int>(p) == rank_) {
      all[p].assign(mine.begin(), mine.end());
    } else {
      all[p].resize(static_cast<std::size_t>(sizes[p]));
      start_receive(all[p].data(), sizes[p], static_cast<int>(p), "gather_bytes");
    }
  }
  finish("gather_bytes");
  return all;
}

void MpiCommunicator::broadcast_bytes(std::vector<std::byte>& inout, int root) {
  auto bytes = static_cast<std::int64_t>(inout.size());
  const Call call(*this, "broadcast_bytes", broadcast_traffic(bytes, size_, rank_ == root));
  broadcast_memory(&bytes, sizeof bytes, root, "broadcast_bytes");
  inout.resize(static_cast<std::size_t>(bytes));
  broadcast_memory(inout.data(), bytes, root, "broadcast_bytes");
}

void MpiCommunicator::barrier() {
  const Call call(*this, "barrier", 0);
  check(MPI_Barrier(group_), "barrier");
}

std::unique_ptr<Communicator::Transfer> MpiCommunicator::start_send(std::span<const std::byte> bytes, int to) {
  const Call call(*this, "start_send", static_cast<std::int64_t>(bytes.size()));
  start_send(bytes.data(), static_cast<std::int64_t>(bytes.size()), to, "start_send");
  return std::make_unique<MpiTransfer>(std::exchange(requests_, {}), rank_, size_);
}

std::unique_ptr<Communicator::Transfer> MpiCommunicator::start_receive(std::span<std::byte> bytes, int from) {
  const Call call(*this, "start_receive", 0);
  start_receive(bytes.data(), static_cast<std::int64_t>(bytes.size()), from, "start_receive");
  return std::make_unique<MpiTransfer>(std::exchange(requests_, {}), rank_, size_);
}

std::unique_ptr<Communicator> MpiCommunicator::split(int color, int key) {
  expect(color >= 0, "split: a color is not negative");
  const Call call(*this, "split", 0);
  MPI_Comm part = MPI_COMM_NULL;
  check(MPI_Comm_split(group_, color, key, &part), "split");
  return std::make_unique<MpiCommunicator>(session_, part, piece_bytes_);
}

}  // namespace

std::unique_ptr<Communicator> make_mpi_world(std::int64_t largest_message_bytes) {
  expect(largest_message_bytes >= 8 && largest_message_bytes < std::int64_t{1} << 31,
         "make_mpi_world: one message holds between 8 bytes and 2 GiB");
  auto session = MpiSession::get();
  MPI_Comm world = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &world), "MPI_Comm_dup", 0, 0);
  return std::make_unique<MpiCommunicator>(std::move(session), world, largest_message_bytes);
}

}  // namespace smlp
