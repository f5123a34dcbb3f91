#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "comm/collective.h"
#include "comm/nccl/nccl_communicator.h"
#include "core/error.h"
#include "tensor/cuda/check.h"
#include "tensor/cuda/stream.h"

namespace smlp {

namespace {

ncclDataType_t type_of_sum(const char* call, DType type) {
  switch (type) {
    case DType::f64:
      return ncclFloat64;
    case DType::f32:
      return ncclFloat32;
    case DType::f16:
      return ncclFloat16;
    case DType::bf16:
      return ncclBfloat16;
    case DType::i64:
      return ncclInt64;
    default:
      break;
  }
  throw Error(ExitCode::fault,
              fmt::format("{}: sums are taken of f64, f32, f16, bf16 and i64, not of {}", call, name_of(type)));
}

ncclRedOp_t op_of(Reduce op) { return op == Reduce::sum ? ncclSum : ncclMax; }

std::size_t unsigned_of(std::int64_t count) { return static_cast<std::size_t>(count); }

}  // namespace

NcclCommunicator::NcclCommunicator(std::shared_ptr<Communicator> host, std::shared_ptr<NcclSession> session)
    : OverHost(std::move(host)), session_(std::move(session)) {
  group_.owner = this;
}

NcclCommunicator::~NcclCommunicator() { session_->leave(group_); }

void NcclCommunicator::after(Backend& backend) { session_->after(backend); }
void NcclCommunicator::before(Backend& backend) { session_->before(backend); }

void NcclCommunicator::connect() {
  expect_sound();
  const Call call(*this, "connect", 0);
  join();
}

void NcclCommunicator::join() {
  if (std::exchange(joined_, true) || size() == 1) return;
  ncclUniqueId id{};
  if (rank() == 0) check(ncclGetUniqueId(&id), "starting NCCL");
  std::vector<std::byte> bytes(sizeof id);
  std::memcpy(bytes.data(), &id, sizeof id);
  host().broadcast_bytes(bytes, 0);
  std::memcpy(&id, bytes.data(), sizeof id);
  ncclComm_t comm = nullptr;
  check(ncclCommInitRank(&comm, size(), id, rank()), "joining the other ranks in NCCL");
  session_->add(group_, comm);
}

// One collective of views: enqueue(comm) calls NCCL.
template <class Enqueue>
void NcclCommunicator::collective(const char* name, std::int64_t bytes_sent, Enqueue enqueue) {
  expect_sound();
  const Call call(*this, name, bytes_sent);
  join();
  const auto calling = session_->calling();
  const ncclComm_t comm = session_->comm_of(group_);
  group_.call = name;
  group_.number = calls();
  enqueue(comm);
}

void NcclCommunicator::copy(const void* from, void* to, std::int64_t bytes) {
  if (from == to || bytes == 0) return;
  cuda::check(cudaMemcpyAsync(to, from, unsigned_of(bytes), cudaMemcpyDeviceToDevice, session_->stream()),
              "a copy on the device failed");
}

void NcclCommunicator::all_reduce(TensorView inout, Reduce op) {
  expect(inout.contiguous(), "all_reduce: the view is not contiguous");
  const auto type = type_of_sum("all_reduce", inout.dtype);
  collective("all_reduce", reduce_traffic(inout.bytes(), size()), [&](ncclComm_t comm) {
    if (size() == 1 || inout.size() == 0) return;
    check(ncclAllReduce(inout.data, inout.data, unsigned_of(inout.size()), type, op_of(op), comm,
                        session_->stream()),
          "all_reduce");
  });
}

void NcclCommunicator::reduce_scatter(TensorView in, TensorView out) {
  own_part(in, out, "reduce_scatter");
  const auto type = type_of_sum("reduce_scatter", in.dtype);
  collective("reduce_scatter", in.bytes() - out.bytes(), [&](ncclComm_t comm) {
    if (size() == 1) return copy(in.data, out.data, in.bytes());
    if (in.size() == 0) return;
    check(ncclReduceScatter(in.data, out.data, unsigned_of(out.size()), type, ncclSum, comm,
                            session_->stream()),
          "reduce_scatter");
  });
}

void NcclCommunicator::all_gather(TensorView in, TensorView out) {
  own_part(out, in, "all_gather");
  collective("all_gather", out.bytes() - in.bytes(), [&](ncclComm_t comm) {
    if (size() == 1) return copy(in.data, out.data, in.bytes());
    if (in.size() == 0) return;
    check(ncclAllGather(in.data, out.data, unsigned_of(in.bytes()), ncclUint8, comm, session_->stream()), "all_gather");
  });
}

void NcclCommunicator::broadcast(TensorView inout, int root) {
  expect(inout.contiguous(), "broadcast: the view is not contiguous");
  collective("broadcast", broadcast_traffic(inout.bytes(), size(), rank() == root), [&](ncclComm_t comm) {
    if (size() == 1 || inout.size() == 0) return;
    check(ncclBroadcast(inout.data, inout.data, unsigned_of(inout.bytes()), ncclUint8, root, comm,
                        session_->stream()),
          "broadcast");
  });
}

// The part that stays is copied; the rest travels as one group of sends and receives.
void NcclCommunicator::all_to_all(TensorView in, std::span<const std::int64_t> rows_to, TensorView out,
                                  std::span<const std::int64_t> rows_from) {
  check_exchange(in, rows_to, out, rows_from, rank(), size());
  const std::int64_t row = row_bytes(in);
  std::int64_t sent = 0, to_me_at = 0, from_me_at = 0;
  for (int p = 0; p < size(); ++p) {
    const auto peer = unsigned_of(p);
    if (p < rank()) from_me_at += rows_to[peer] * row;
    if (p < rank()) to_me_at += rows_from[peer] * row;
    if (p != rank()) sent += rows_to[peer] * row;
  }
  collective("all_to_all", sent, [&](ncclComm_t comm) {
    const char* from = static_cast<const char*>(in.data);
    char* to = static_cast<char*>(out.data);
    copy(from + from_me_at, to + to_me_at, rows_to[unsigned_of(rank())] * row);
    if (size() == 1) return;
    check(ncclGroupStart(), "all_to_all");
    ncclResult_t status = ncclSuccess;
    for (int p = 0; p < size(); ++p) {
      const std::int64_t leaves = rows_to[unsigned_of(p)] * row, comes = rows_from[unsigned_of(p)] * row;
      if (p != rank() && leaves > 0 && status == ncclSuccess)
        status = ncclSend(from, unsigned_of(leaves), ncclUint8, p, comm, session_->stream());
      if (p != rank() && comes > 0 && status == ncclSuccess)
        status = ncclRecv(to, unsigned_of(comes), ncclUint8, p, comm, session_->stream());
      from += leaves;
      to += comes;
    }
    const ncclResult_t ended = ncclGroupEnd();
    check(status, "all_to_all");
    check(ended, "all_to_all");
  });
}

std::unique_ptr<Communicator> NcclCommunicator::split(int color, int key) {
  return count("split", [&]() -> std::unique_ptr<Communicator> {
    return std::make_unique<NcclCommunicator>(host().split(color, key), session_);
  });
}

std::unique_ptr<Communicator> make_nccl(std::unique_ptr<Communicator> host, Backend& backend) {
  cuda::stream_of(backend);  // throws where there is none
  const std::shared_ptr<Communicator> shared = std::move(host);
  return std::make_unique<NcclCommunicator>(shared, std::make_shared<NcclSession>(shared));
}

}  // namespace smlp
