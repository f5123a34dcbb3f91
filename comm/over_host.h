// What a communicator for the memory of devices leaves to the one of the hosts beneath it: everything but the
// collectives of views. Base of Staged and of NcclCommunicator.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "comm/communicator.h"

namespace smlp {

class OverHost : public Communicator {
 public:
  explicit OverHost(std::shared_ptr<Communicator> host) : host_(std::move(host)) {}

  int rank() const noexcept override { return host_->rank(); }
  int size() const noexcept override { return host_->size(); }

  void all_reduce_host(std::span<double> inout, Reduce op) override;
  void all_to_all_host(std::span<const std::int64_t> in, std::span<std::int64_t> out) override;
  std::vector<std::vector<std::byte>> gather_bytes(std::span<const std::byte> mine, int root) override;
  void broadcast_bytes(std::vector<std::byte>& inout, int root) override;
  void barrier() override;
  std::unique_ptr<Transfer> start_send(std::span<const std::byte> bytes, int to) override;
  std::unique_ptr<Transfer> start_receive(std::span<std::byte> bytes, int from) override;
  [[noreturn]] void abort(int status) noexcept override;

 protected:
  // Before every call: throws where the group is known to have failed.
  virtual void expect_sound() {}
  // One call of this communicator, made of calls of the host's, whose bytes count.
  template <class Body>
  auto count(const char* name, Body body) {
    expect_sound();
    const Call call(*this, name, 0);
    const Sent sent{*this, host_->bytes_sent()};
    return body();
  }
  Communicator& host() noexcept { return *host_; }

 private:
  struct Sent {
    OverHost& owner;
    std::int64_t before;
    ~Sent() { owner.add_bytes_sent(owner.host_->bytes_sent() - before); }
  };

  std::shared_ptr<Communicator> host_;
};

}  // namespace smlp
