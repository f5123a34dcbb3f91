// Streams and events of the emulation. Kernels and copies run when they are enqueued, which is one of the orders that
// a device may take. What it could still be at is kept back, so that code which does not wait for it fails: uploads
// from pinned memory read it when the next work comes; downloads into pinned memory read the device's, and poison the
// host's, until other work follows on their stream or somebody waits for them; what NCCL touches is poisoned until a
// stream, or the host, waits for it. A copy to the host that some kernel of another stream is not known to be done for
// brings 0xFF. Pinned memory that is freed while a copy may use it ends the program.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace smlp::emulation {

bool can_pin(std::size_t bytes);
void pinned(void* memory, std::size_t bytes);  // 0 bytes: no longer
// Is a stream being captured? Its capture has failed then: the caller does what must not be done meanwhile.
bool breaks_capture();
// What happens to the next graph that is made ready.
void refuse_graph(cudaError_t error);
void finish_all();                             // as calls that wait for the device
std::int64_t waits();                          // of the host for a stream, so far
void set_pinned_limit(std::size_t bytes);      // the largest block that there is

// A device that reads the host's pages itself: uploads read any memory as late as pinned memory.
void set_reads_host_pages(bool on);
bool reads_host_pages();
void set_capability(int capability);  // 90 at first
int capability();
// A device that is slow to copy: the host, where it waits for an event, gets none of the downloads before another stream
// waits for them, or this ends.
void set_slow_downloads(bool on);
// Events tell the device's own time from now on: so many seconds for a kernel or a copy, so many for a call of NCCL, each
// after what its stream waits for. 0 and 0: the host's clock.
void set_clock(double seconds_of_work, double seconds_of_collective);

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
