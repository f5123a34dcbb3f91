// Streams and events of the emulation. Kernels and copies run when they are enqueued, which is one of the orders that
// a device may take. What it could still be at is kept back, so that code which does not wait for it fails: uploads
// from pinned memory read it when the next work comes, and what NCCL touches is poisoned until a stream, or the host,
// waits for it.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <string>
#include <vector>

namespace smlp::emulation {

void pinned(void* memory, std::size_t bytes);  // 0 bytes: no longer
// Is a stream being captured? Its capture has failed then: the caller does what must not be done meanwhile.
bool breaks_capture();
// What happens to the next graph that is made ready.
void refuse_graph(cudaError_t error);
void finish_all();                             // as calls that wait for the device

struct Range {
  const void* first;
  std::size_t bytes;
};
struct Written {
  void* to;
  std::vector<std::byte> bytes;
};

// Work of NCCL. What may be wrong with its place on `stream`, or ""; then what comes before it there and touches the
// same memory is done.
std::string out_of_order(cudaStream_t stream, const std::vector<Range>& touched);
// Its results, which come when somebody waits for them.
void start(cudaStream_t stream, std::vector<Range> touched, std::vector<Written> results);
void start_without_end(cudaStream_t stream);  // whoever waits for it waits for give_up()
void give_up();                               // from any thread

}  // namespace smlp::emulation
