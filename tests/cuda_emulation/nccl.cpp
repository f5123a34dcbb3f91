// NCCL on the host: what a call does is done at once, and what it writes comes when somebody waits for it (streams.h).
// Calls that ranks make differently, that no after() has ordered, or that a device would hang in, are refused.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <fmt/format.h>
#include <nccl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/cuda_emulation/fake_nccl.h"
#include "tests/cuda_emulation/nccl_links.h"
#include "tests/cuda_emulation/streams.h"

struct ncclComm {
  int rank, ranks;
  smlp::emulation::NcclLinks links;
  cudaStream_t stream = nullptr;
  std::int64_t collectives = 0;
  std::atomic<ncclResult_t> error = ncclSuccess;
};

namespace smlp::emulation {

namespace {

enum class Kind : std::int64_t { all_reduce = 1, reduce_scatter, all_gather, broadcast, message };

struct Waiting {
  bool sends;
  void* memory;
  std::size_t bytes;
  ncclDataType_t type;
  int peer;
  ncclComm_t comm;
  cudaStream_t stream;
};

std::set<ncclComm_t> communicators;
std::vector<Waiting> group;
int depth = 0, operations = 0, failing = 0;
std::atomic<bool> aborted = false, abort_hangs = false;
std::string last_error;

ncclResult_t refuse(ncclResult_t how, const std::string& why) {
  last_error = why;
  return how;
}

std::size_t size_of(ncclDataType_t type) {
  if (type == ncclInt8 || type == ncclUint8) return 1;
  if (type == ncclFloat16 || type == ncclBfloat16) return 2;
  return type == ncclFloat32 || type == ncclInt32 ? 4 : 8;
}

float widened(float value) { return value; }
float widened(__half value) { return __half2float(value); }
float widened(__nv_bfloat16 value) { return __bfloat162float(value); }
double widened(double value) { return value; }
std::int64_t widened(std::int64_t value) { return value; }
void narrow(float value, float& to) { to = value; }
void narrow(float value, __half& to) { to = __float2half_rn(value); }
void narrow(float value, __nv_bfloat16& to) { to = __float2bfloat16_rn(value); }
void narrow(double value, double& to) { to = value; }
void narrow(std::int64_t value, std::int64_t& to) { to = value; }

template <class T>
void reduce(const std::vector<std::vector<std::byte>>& parts, ncclRedOp_t op, std::vector<std::byte>& result) {
  for (std::size_t at = 0; at < result.size(); at += sizeof(T)) {
    T value;
    std::memcpy(&value, parts[0].data() + at, sizeof value);
    auto sum = widened(value);
    for (std::size_t p = 1; p < parts.size(); ++p) {
      std::memcpy(&value, parts[p].data() + at, sizeof value);
      sum = op == ncclSum ? sum + widened(value) : std::max(sum, widened(value));
    }
    narrow(sum, value);
    std::memcpy(result.data() + at, &value, sizeof value);
  }
}

// Of all ranks' parts, in their order: the same bits everywhere.
std::vector<std::byte> reduced(const std::vector<std::vector<std::byte>>& parts, ncclDataType_t type, ncclRedOp_t op) {
  std::vector<std::byte> result(parts[0].size());
  if (type == ncclFloat64) reduce<double>(parts, op, result);
  if (type == ncclFloat32) reduce<float>(parts, op, result);
  if (type == ncclInt64) reduce<std::int64_t>(parts, op, result);
  if (type == ncclFloat16) reduce<__half>(parts, op, result);
  if (type == ncclBfloat16) reduce<__nv_bfloat16>(parts, op, result);
  return result;
}

// Whether an operation may begin; `ends`: whether it does anything but fail behind the caller's back.
ncclResult_t begin(ncclComm_t comm, cudaStream_t stream, const std::vector<Range>& touched, bool& ends) {
  if (!communicators.contains(comm)) return refuse(ncclInvalidArgument, "there is no such communicator");
  comm->stream = stream;
  for (const auto other : communicators) {
    if (other->stream && other->stream != stream)
      return refuse(ncclInvalidUsage, "two communicators on two streams may hang");
  }
  if (const auto wrong = out_of_order(stream, touched); !wrong.empty()) return refuse(ncclInvalidUsage, wrong);
  ends = ++operations != failing;
  if (!ends) {
    last_error = "the peer of the test is gone";
    start_without_end(stream);
    comm->error = ncclRemoteError;
  }
  return ncclSuccess;
}

struct Collective {
  Kind kind;
  const void* in;
  void* out;
  std::size_t in_bytes, out_bytes;  // of this rank
  ncclDataType_t type;
  int op, root;
};

ncclResult_t run(const Collective& c, ncclComm_t comm, cudaStream_t stream) {
  if (depth > 0) return refuse(ncclInvalidUsage, "groups of collectives are beyond this emulation");
  if (c.root >= comm->ranks) return refuse(ncclInvalidArgument, "there is no such root");
  const bool whole = c.kind == Kind::all_reduce || c.kind == Kind::broadcast;
  const auto me = static_cast<std::size_t>(comm->rank), ranks = static_cast<std::size_t>(comm->ranks);
  const auto *in = static_cast<const std::byte*>(c.in), *out = static_cast<const std::byte*>(c.out);
  const auto* in_place = whole ? out : c.kind == Kind::all_gather ? out + me * c.in_bytes : out - me * c.out_bytes;
  if (in != in_place && in < out + c.out_bytes && out < in + c.in_bytes)
    return refuse(ncclInvalidUsage, "in and out overlap, and not as in a call in place");
  bool ends = true;
  const std::vector<Range> touched = {{c.in, c.in_bytes}, {c.out, c.out_bytes}};
  if (const auto status = begin(comm, stream, touched, ends); status != ncclSuccess || !ends) return status;

  const bool sends = c.kind != Kind::broadcast || comm->rank == c.root;
  const std::size_t piece = c.kind == Kind::reduce_scatter ? c.out_bytes : c.in_bytes;
  const Tag tag{static_cast<std::int64_t>(c.kind), c.type, c.op, c.root, ++comm->collectives, piece};
  const auto own = [&](std::size_t to) { return in + (c.kind == Kind::reduce_scatter ? to * piece : 0); };
  std::vector<std::vector<std::byte>> parts(ranks, std::vector<std::byte>(piece));
  std::vector<Message> going, coming;
  for (std::size_t p = 0; p < ranks; ++p) {
    const int peer = static_cast<int>(p);
    if (p == me) {
      if (sends) parts[p].assign(own(me), own(me) + piece);
      continue;
    }
    if (sends) going.push_back({peer, const_cast<std::byte*>(own(p)), tag});
    if (c.kind != Kind::broadcast || peer == c.root) coming.push_back({peer, parts[p].data(), tag});
  }
  if (const auto wrong = comm->links.exchange(going, coming); !wrong.empty()) return refuse(ncclInvalidUsage, wrong);
  std::vector<std::byte> result;
  if (c.kind == Kind::broadcast) {
    result = parts[static_cast<std::size_t>(c.root)];
  } else if (c.kind == Kind::all_gather) {
    for (const auto& part : parts) result.insert(result.end(), part.begin(), part.end());
  } else {
    result = reduced(parts, c.type, static_cast<ncclRedOp_t>(c.op));
  }
  start(stream, touched, {{c.out, std::move(result)}});
  return ncclSuccess;
}

ncclResult_t run_group() {
  const auto all = std::exchange(group, {});
  if (all.empty()) return ncclSuccess;
  const ncclComm_t comm = all.front().comm;
  std::vector<Range> touched;
  for (const auto& one : all) {
    if (one.comm != comm || one.stream != all.front().stream)
      return refuse(ncclInvalidUsage, "groups over several communicators are beyond this emulation");
    if (one.peer < 0 || one.peer >= comm->ranks) return refuse(ncclInvalidArgument, "there is no such peer");
    touched.push_back({one.memory, one.bytes});
  }
  bool ends = true;
  if (const auto status = begin(comm, all.front().stream, touched, ends); status != ncclSuccess || !ends) return status;
  std::vector<Message> going, coming;
  std::vector<Written> results;
  for (const auto& one : all) {
    const Tag tag{static_cast<std::int64_t>(Kind::message), one.type, 0, 0, 0, one.bytes};
    if (one.sends) going.push_back({one.peer, one.memory, tag});
    if (one.sends) continue;
    results.push_back({one.memory, std::vector<std::byte>(one.bytes)});
    coming.push_back({one.peer, results.back().bytes.data(), tag});
  }
  if (const auto wrong = comm->links.exchange(going, coming); !wrong.empty()) return refuse(ncclInvalidUsage, wrong);
  start(all.front().stream, touched, std::move(results));
  return ncclSuccess;
}

ncclResult_t add_to_group(const Waiting& one) {
  if (depth == 0)
    return refuse(ncclInvalidUsage, "a send or a receive outside of a group waits for its peer on the device");
  group.push_back(one);
  return ncclSuccess;
}

}  // namespace

int nccl_communicators() { return static_cast<int>(communicators.size()); }
int nccl_operations() { return operations; }
void fail_nccl_operation(int number) { failing = number; }
bool nccl_was_aborted() { return aborted; }
void hang_in_nccl_abort() { abort_hangs = true; }

}  // namespace smlp::emulation

using namespace smlp::emulation;

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::memset(id, 0, sizeof *id);
  const auto name = NcclLinks::make_name();
  std::memcpy(id->internal, name.c_str(), name.size());
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank) {
  try {
    *comm = new ncclComm{rank, ranks, {id.internal, rank, ranks}};
  } catch (const std::exception& error) {
    return refuse(ncclSystemError, error.what());
  }
  communicators.insert(*comm);
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (communicators.erase(comm) == 0) return refuse(ncclInvalidArgument, "there is no such communicator");
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  while (abort_hangs) pause();
  aborted = true;
  give_up();
  return ncclCommDestroy(comm);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  *error = comm->error;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    case ncclInvalidUsage:
      return "invalid usage";
    default:
      return "an error of the emulation";
  }
}

const char* ncclGetLastError(ncclComm_t) { return last_error.c_str(); }

ncclResult_t ncclAllReduce(const void* in, void* out, std::size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  const std::size_t bytes = count * size_of(type);
  return run({Kind::all_reduce, in, out, bytes, bytes, type, op, 0}, comm, stream);
}

ncclResult_t ncclReduceScatter(const void* in, void* out, std::size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
  const std::size_t share = count * size_of(type);
  return run({Kind::reduce_scatter, in, out, share * static_cast<std::size_t>(comm->ranks), share, type, op, 0}, comm,
             stream);
}

ncclResult_t ncclAllGather(const void* in, void* out, std::size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  const std::size_t share = count * size_of(type);
  return run({Kind::all_gather, in, out, share, share * static_cast<std::size_t>(comm->ranks), type, 0, 0}, comm,
             stream);
}

ncclResult_t ncclBroadcast(const void* in, void* out, std::size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  const std::size_t bytes = count * size_of(type);
  return run({Kind::broadcast, in, out, bytes, bytes, type, 0, root}, comm, stream);
}

ncclResult_t ncclSend(const void* from, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return add_to_group({true, const_cast<void*>(from), count * size_of(type), type, peer, comm, stream});
}

ncclResult_t ncclRecv(void* to, std::size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return add_to_group({false, to, count * size_of(type), type, peer, comm, stream});
}

ncclResult_t ncclGroupStart() {
  ++depth;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (depth == 0) return refuse(ncclInvalidUsage, "no group was begun");
  return --depth > 0 ? ncclSuccess : run_group();
}
