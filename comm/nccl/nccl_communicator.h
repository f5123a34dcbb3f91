// Ranks with a GPU each. Collectives of views are NCCL's and return as soon as they are enqueued; all else goes to the
// host's communicator. A group joins its peers in NCCL when it is told to, or at its first collective of views: many have none.
#pragma once

#include <memory>

#include "comm/nccl/session.h"
#include "comm/over_host.h"

namespace smlp {

class NcclCommunicator final : public OverHost {
 public:
  NcclCommunicator(std::shared_ptr<Communicator> host, std::shared_ptr<NcclSession> session);
  ~NcclCommunicator() override;

  void after(Backend& backend) override;
  void before(Backend& backend) override;
  void connect() override;

  void all_reduce(TensorView inout, Reduce op) override;
  void reduce_scatter(TensorView in, TensorView out) override;
  void all_gather(TensorView in, TensorView out) override;
  void broadcast(TensorView inout, int root) override;
  void all_to_all(TensorView in, std::span<const std::int64_t> rows_to, TensorView out,
                  std::span<const std::int64_t> rows_from) override;
  std::unique_ptr<Communicator> split(int color, int key) override;

 protected:
  void expect_sound() override { session_->expect_sound(); }

 private:
  template <class Enqueue>
  void collective(const char* name, std::int64_t bytes_sent, Enqueue enqueue);
  void check(ncclResult_t status, const char* call) const { check_nccl(status, call, *this); }
  void join();
  void copy(const void* from, void* to, std::int64_t bytes);

  std::shared_ptr<NcclSession> session_;
  NcclSession::Group group_;
  bool joined_ = false;
};

}  // namespace smlp
