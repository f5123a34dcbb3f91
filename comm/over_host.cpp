#include "comm/over_host.h"

#include <cstdlib>

namespace smlp {

void OverHost::all_reduce_host(std::span<double> inout, Reduce op) {
  count("all_reduce_host", [&] { host_->all_reduce_host(inout, op); });
}

void OverHost::all_to_all_host(std::span<const std::int64_t> in, std::span<std::int64_t> out) {
  count("all_to_all_host", [&] { host_->all_to_all_host(in, out); });
}

std::vector<std::vector<std::byte>> OverHost::gather_bytes(std::span<const std::byte> mine, int root) {
  return count("gather_bytes", [&] { return host_->gather_bytes(mine, root); });
}

void OverHost::broadcast_bytes(std::vector<std::byte>& inout, int root) {
  count("broadcast_bytes", [&] { host_->broadcast_bytes(inout, root); });
}

void OverHost::barrier() {
  count("barrier", [&] { host_->barrier(); });
}

std::unique_ptr<Communicator::Transfer> OverHost::start_send(std::span<const std::byte> bytes, int to) {
  return count("start_send", [&] { return host_->start_send(bytes, to); });
}

std::unique_ptr<Communicator::Transfer> OverHost::start_receive(std::span<std::byte> bytes, int from) {
  return count("start_receive", [&] { return host_->start_receive(bytes, from); });
}

void OverHost::abort(int status) noexcept {
  host_->abort(status);
  std::_Exit(status);  // the compiler does not know that the call above never returns
}

}  // namespace smlp
