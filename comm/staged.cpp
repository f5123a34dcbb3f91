// Ranks whose memory the host can't reach talk through copies in the host's: for GPUs where nothing better is
// at hand, and for ranks that share one. Calls are finished when they return, up to the last copy, which is
// ordered.
#include "comm/collective.h"
#include "comm/over_host.h"
#include "core/error.h"

namespace smlp {

namespace {

// Of the host, as the backend copies from and to it best. It grows to what was asked for most.
class HostMemory {
 public:
  explicit HostMemory(Backend& backend) : backend_(backend) {}
  ~HostMemory() { backend_.release_host(memory_); }
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  TensorView view(Shape shape, DType type) {
    const std::int64_t bytes = TensorView(nullptr, shape, type).bytes();
    if (memory_ == nullptr || bytes > bytes_) {
      backend_.release_host(std::exchange(memory_, nullptr));
      memory_ = backend_.allocate_host(bytes);
      bytes_ = bytes;
    }
    return {memory_, shape, type};
  }

 private:
  Backend& backend_;
  void* memory_ = nullptr;
  std::int64_t bytes_ = 0;
};

class Staged final : public OverHost {
 public:
  Staged(std::unique_ptr<Communicator> host, Backend& backend)
      : OverHost(std::move(host)), backend_(backend), send_(backend), receive_(backend) {}

  void all_reduce(TensorView inout, Reduce op) override {
    count("all_reduce", [&] {
      if (size() == 1) return host().all_reduce(inout, op);
      const TensorView copy = downloaded(inout);
      host().all_reduce(copy, op);
      upload(copy, inout);
    });
  }

  void reduce_scatter(TensorView in, TensorView out) override {
    count("reduce_scatter", [&] {
      const TensorView copy = downloaded(in), part = own_part(copy, out, "reduce_scatter");
      host().reduce_scatter(copy, part);
      if (out.size() > 0) upload(part, out);
    });
  }

  void all_gather(TensorView in, TensorView out) override {
    count("all_gather", [&] {
      const TensorView copy = staged(receive_, out.shape, out.dtype), part = own_part(copy, in, "all_gather");
      if (in.size() > 0) backend_.download(in, part.data);
      host().all_gather(part, copy);
      if (out.size() > 0) upload(copy, out);
    });
  }

  void broadcast(TensorView inout, int root) override {
    count("broadcast", [&] {
      const TensorView copy = rank() == root ? downloaded(inout) : staged(send_, inout.shape, inout.dtype);
      host().broadcast(copy, root);
      if (rank() != root) upload(copy, inout);
    });
  }

  void all_to_all(TensorView in, std::span<const std::int64_t> rows_to, TensorView out,
                  std::span<const std::int64_t> rows_from) override {
    check_exchange(in, rows_to, out, rows_from, rank(), size());
    count("all_to_all", [&] {
      const auto total = [](std::span<const std::int64_t> rows) {
        std::int64_t sum = 0;
        for (const auto count : rows) sum += count;
        return sum;
      };
      const std::int64_t sent = total(rows_to), taken = total(rows_from);
      const TensorView from = downloaded(in.row_range(0, sent)), target = out.row_range(0, taken);
      const TensorView to = staged(receive_, target.shape, target.dtype);
      host().all_to_all(from, rows_to, to, rows_from);
      if (taken > 0) upload(to, target);
    });
  }

  std::unique_ptr<Communicator> split(int color, int key) override {
    return count("split", [&]() -> std::unique_ptr<Communicator> {
      return std::make_unique<Staged>(host().split(color, key), backend_);
    });
  }

 private:
  // Memory of the host that lasts until the next call of that direction.
  TensorView staged(HostMemory& memory, Shape shape, DType type) {
    wait_for_uploads();
    return memory.view(shape, type);
  }
  TensorView downloaded(const TensorView& from) {
    const TensorView copy = staged(send_, from.shape, from.dtype);
    if (from.size() > 0) backend_.download(from, copy.data);
    return copy;
  }
  void upload(const TensorView& copy, const TensorView& to) {
    backend_.upload(copy.data, to);
    uploading_ = true;
  }
  // Of the calls before: until then their copies are not to be touched.
  void wait_for_uploads() {
    if (std::exchange(uploading_, false)) backend_.synchronize();
  }

  Backend& backend_;
  HostMemory send_, receive_;
  bool uploading_ = false;
};

}  // namespace

std::unique_ptr<Communicator> make_staged(std::unique_ptr<Communicator> host, Backend& backend) {
  return std::make_unique<Staged>(std::move(host), backend);
}

}  // namespace smlp
