// Ranks whose memory the host can't reach talk through copies in the host's: for GPUs where nothing better is
// at hand, and for ranks that share one. Calls are finished when they return, up to the last copy, which is
// ordered.
#include <cstdlib>
#include <vector>

#include "comm/communicator.h"
#include "core/error.h"

namespace smlp {

namespace {

class Staged final : public Communicator {
 public:
  Staged(std::unique_ptr<Communicator> host, Backend& backend) : host_(std::move(host)), backend_(backend) {}

  int rank() const noexcept override { return host_->rank(); }
  int size() const noexcept override { return host_->size(); }

  void all_reduce(TensorView inout, Reduce op) override {
    count("all_reduce", [&] {
      if (size() == 1) return host_->all_reduce(inout, op);
      const TensorView copy = downloaded(inout);
      host_->all_reduce(copy, op);
      backend_.upload(copy.data, inout);
    });
  }

  void reduce_scatter(TensorView in, TensorView out) override {
    count("reduce_scatter", [&] {
      const TensorView copy = downloaded(in), part = own_part(copy, out, "reduce_scatter");
      host_->reduce_scatter(copy, part);
      if (out.size() > 0) backend_.upload(part.data, out);
    });
  }

  void all_gather(TensorView in, TensorView out) override {
    count("all_gather", [&] {
      const TensorView copy = staged(receive_, out.shape, out.dtype), part = own_part(copy, in, "all_gather");
      if (in.size() > 0) backend_.download(in, part.data);
      host_->all_gather(part, copy);
      if (out.size() > 0) backend_.upload(copy.data, out);
    });
  }

  void broadcast(TensorView inout, int root) override {
    count("broadcast", [&] {
      const TensorView copy = rank() == root ? downloaded(inout) : staged(send_, inout.shape, inout.dtype);
      host_->broadcast(copy, root);
      if (rank() != root) backend_.upload(copy.data, inout);
    });
  }

  void all_to_all(TensorView in, std::span<const std::int64_t> rows_to, TensorView out,
                  std::span<const std::int64_t> rows_from) override {
    expect(in.contiguous() && out.contiguous(), "all_to_all: a view is not contiguous");
    count("all_to_all", [&] {
      const auto total = [](std::span<const std::int64_t> rows) {
        std::int64_t sum = 0;
        for (const auto count : rows) sum += count;
        return sum;
      };
      const std::int64_t sent = total(rows_to), taken = total(rows_from);
      expect(sent <= in.shape[0] && taken <= out.shape[0],
             "all_to_all: the counts add up to more rows than a view has");
      const TensorView from = downloaded(in.row_range(0, sent)), target = out.row_range(0, taken);
      const TensorView to = staged(receive_, target.shape, target.dtype);
      host_->all_to_all(from, rows_to, to, rows_from);
      if (taken > 0) backend_.upload(to.data, target);
    });
  }

  void all_reduce_host(std::span<double> inout, Reduce op) override {
    count("all_reduce_host", [&] { host_->all_reduce_host(inout, op); });
  }
  void all_to_all_host(std::span<const std::int64_t> in, std::span<std::int64_t> out) override {
    count("all_to_all_host", [&] { host_->all_to_all_host(in, out); });
  }
  std::vector<std::vector<std::byte>> gather_bytes(std::span<const std::byte> mine, int root) override {
    std::vector<std::vector<std::byte>> all;
    count("gather_bytes", [&] { all = host_->gather_bytes(mine, root); });
    return all;
  }
  void broadcast_bytes(std::vector<std::byte>& inout, int root) override {
    count("broadcast_bytes", [&] { host_->broadcast_bytes(inout, root); });
  }
  void barrier() override {
    count("barrier", [&] { host_->barrier(); });
  }
  std::unique_ptr<Transfer> start_send(std::span<const std::byte> bytes, int to) override {
    std::unique_ptr<Transfer> transfer;
    count("start_send", [&] { transfer = host_->start_send(bytes, to); });
    return transfer;
  }
  std::unique_ptr<Transfer> start_receive(std::span<std::byte> bytes, int from) override {
    std::unique_ptr<Transfer> transfer;
    count("start_receive", [&] { transfer = host_->start_receive(bytes, from); });
    return transfer;
  }
  std::unique_ptr<Communicator> split(int color, int key) override {
    std::unique_ptr<Communicator> part;
    count("split", [&] { part = std::make_unique<Staged>(host_->split(color, key), backend_); });
    return part;
  }
  [[noreturn]] void abort(int status) noexcept override {
    host_->abort(status);
    std::_Exit(status);  // the compiler does not know that the call above never returns
  }

 private:
  template <class Body>
  void count(const char* name, Body body) {
    const Call call(*this, name, 0);
    const std::int64_t before = host_->bytes_sent();
    body();
    add_bytes_sent(host_->bytes_sent() - before);
  }

  // Memory of the host that lasts until the next call of that direction; it grows to what was asked for most.
  TensorView staged(std::vector<std::byte>& memory, Shape shape, DType type) {
    const TensorView view(nullptr, shape, type);
    if (std::ssize(memory) < view.bytes() + 1) memory.resize(static_cast<std::size_t>(view.bytes() + 1));
    return {memory.data(), shape, type};
  }
  TensorView downloaded(const TensorView& from) {
    const TensorView copy = staged(send_, from.shape, from.dtype);
    if (from.size() > 0) backend_.download(from, copy.data);
    return copy;
  }

  std::unique_ptr<Communicator> host_;
  Backend& backend_;
  std::vector<std::byte> send_, receive_;
};

}  // namespace

std::unique_ptr<Communicator> make_staged(std::unique_ptr<Communicator> host, Backend& backend) {
  return std::make_unique<Staged>(std::move(host), backend);
}

}  // namespace smlp
