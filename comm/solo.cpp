// One rank: every collective is a copy or nothing at all, so callers never ask how many ranks there are.
#include <algorithm>
#include <cstdlib>

#include "comm/collective.h"
#include "comm/communicator.h"
#include "core/error.h"

namespace smlp {

namespace {

class Solo final : public Communicator {
 public:
  explicit Solo(Backend& backend) : backend_(backend) {}

  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return 1; }

  void all_reduce(TensorView, Reduce) override { const Call call(*this, "all_reduce", 0); }

  void reduce_scatter(TensorView in, TensorView out) override {
    const Call call(*this, "reduce_scatter", 0);
    copy(own_part(in, out, "reduce_scatter"), out);
  }

  void all_gather(TensorView in, TensorView out) override {
    const Call call(*this, "all_gather", 0);
    copy(in, own_part(out, in, "all_gather"));
  }

  void broadcast(TensorView, int root) override {
    expect(root == 0, "broadcast: one rank has no other root than 0");
    const Call call(*this, "broadcast", 0);
  }

  void all_to_all(TensorView in, std::span<const std::int64_t> rows_to, TensorView out,
                  std::span<const std::int64_t> rows_from) override {
    check_exchange(in, rows_to, out, rows_from, 0, 1);
    const Call call(*this, "all_to_all", 0);
    if (rows_to[0] > 0) backend_.copy(in.row_range(0, rows_to[0]), out.row_range(0, rows_from[0]));
  }

  void all_reduce_host(std::span<double>, Reduce) override { const Call call(*this, "all_reduce_host", 0); }

  void all_to_all_host(std::span<const std::int64_t> in, std::span<std::int64_t> out) override {
    expect(in.size() == out.size(), "all_to_all_host: both sides hold one block a rank");
    const Call call(*this, "all_to_all_host", 0);
    std::copy(in.begin(), in.end(), out.begin());
  }

  std::vector<std::vector<std::byte>> gather_bytes(std::span<const std::byte> mine, int root) override {
    expect(root == 0, "gather_bytes: one rank has no other root than 0");
    const Call call(*this, "gather_bytes", 0);
    return {{mine.begin(), mine.end()}};
  }

  void broadcast_bytes(std::vector<std::byte>&, int root) override {
    expect(root == 0, "broadcast_bytes: one rank has no other root than 0");
    const Call call(*this, "broadcast_bytes", 0);
  }

  void barrier() override { const Call call(*this, "barrier", 0); }

  std::unique_ptr<Transfer> start_send(std::span<const std::byte>, int) override {
    throw Error(ExitCode::fault, "start_send: one rank has nobody to send to");
  }
  std::unique_ptr<Transfer> start_receive(std::span<std::byte>, int) override {
    throw Error(ExitCode::fault, "start_receive: one rank has nobody to take from");
  }

  std::unique_ptr<Communicator> split(int, int) override { return std::make_unique<Solo>(backend_); }

  [[noreturn]] void abort(int status) noexcept override { std::_Exit(status); }

 private:
  void copy(const TensorView& from, const TensorView& to) {
    if (from.data != to.data && from.size() > 0) backend_.copy(from, to);
  }

  Backend& backend_;
};

}  // namespace

std::unique_ptr<Communicator> make_solo(Backend& backend) { return std::make_unique<Solo>(backend); }

}  // namespace smlp
