#include "tests/cuda_emulation/streams.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "core/error.h"

// Of the address sanitizer, where the program has it.
extern "C" void __asan_poison_memory_region(const volatile void*, std::size_t) __attribute__((weak));
extern "C" void __asan_unpoison_memory_region(const volatile void*, std::size_t) __attribute__((weak));

// How much work a stream has got, and up to where of each other stream's it waits.
struct CUstream_st {
  std::int64_t work = 0;
  std::int64_t launched = 0;  // the last of it that is no download, and no call of NCCL
  std::int64_t waited = 0;    // the host has, for so much
  double clock = 0;           // of set_clock(): when it is done with all
  std::map<cudaStream_t, std::int64_t> seen{};
  bool stuck = false;  // waits for what has no end
  CUgraph_st* captured = nullptr;
  bool capture_failed = false;
};

struct CUgraph_st {
  std::vector<std::function<void()>> work;
};
struct CUgraphExec_st : CUgraph_st {};

struct CUevent_st {
  bool timed;
  bool recorded = false;
  std::chrono::steady_clock::time_point when{};  // of the host's clock, being all there is
  cudaStream_t stream = nullptr;
  std::int64_t work = 0;
  std::map<cudaStream_t, std::int64_t> seen{};
  double clock = 0;
};

namespace smlp::emulation {

namespace {

struct Underway {
  cudaStream_t stream;
  std::int64_t number;
  std::vector<Range> touched;
  std::vector<Written> results;
  std::function<void()> download{};
  bool endless = false;
};

std::set<cudaStream_t> streams;
std::map<const char*, std::size_t> pinned_memory;
std::vector<std::function<void()>> uploads;
std::vector<Underway> underway;
std::atomic<bool> given_up = false;
std::atomic<std::int64_t> waits_so_far = 0;
std::size_t pinned_limit = std::size_t{1} << 40;
bool late_uploads = false;
int ours = 90;  // the capability
bool slow_downloads = false;
bool own_clock = false;
double work_seconds = 0, collective_seconds = 0;

// Of all of this: a thread that writes a checkpoint waits for events beside the loop.
std::recursive_mutex mutex;
std::condition_variable_any arrived;
using Lock = std::unique_lock<std::recursive_mutex>;
cudaError_t next_graph = cudaSuccess;

void flush_uploads() {
  const auto all = std::exchange(uploads, {});
  for (const auto& upload : all) upload();
}

bool is_pinned(const void* memory) {
  const auto* at = static_cast<const char*>(memory);
  auto next = pinned_memory.upper_bound(at);
  return next != pinned_memory.begin() && at < std::prev(next)->first + std::prev(next)->second;
}

bool overlap(const Range& a, const Range& b) {
  const auto *first = static_cast<const char*>(a.first), *second = static_cast<const char*>(b.first);
  return first < second + b.bytes && second < first + a.bytes;
}

void arrive(const Underway& operation) {
  for (const auto& range : operation.touched) {
    if (__asan_unpoison_memory_region) __asan_unpoison_memory_region(range.first, range.bytes);
  }
  for (const auto& [to, bytes] : operation.results) {
    if (!bytes.empty()) std::memcpy(to, bytes.data(), bytes.size());
  }
  if (operation.download) operation.download();
}

// What `chosen` says of is done, in its order; what has no end stays.
void finish(const std::function<bool(const Underway&)>& chosen) {
  for (auto next = underway.begin(); next != underway.end();) {
    if (next->endless || !chosen(*next)) {
      ++next;
      continue;
    }
    const Underway operation = std::move(*next);
    next = underway.erase(next);
    arrive(operation);
  }
  arrived.notify_all();
}

void finish_up_to(cudaStream_t stream, std::int64_t work) {
  finish([&](const Underway& one) { return one.stream == stream && one.number <= work; });
}

void finish_before(cudaStream_t stream, const std::vector<Range>& touched) {
  finish([&](const Underway& one) {
    if (one.stream != stream) return false;
    return std::any_of(touched.begin(), touched.end(), [&](const Range& range) {
      return std::any_of(one.touched.begin(), one.touched.end(),
                         [&](const Range& other) { return overlap(range, other); });
    });
  });
}

bool endless_in(cudaStream_t stream, std::int64_t work) {
  return std::any_of(underway.begin(), underway.end(), [&](const Underway& one) {
    return one.endless && one.stream == stream && one.number <= work;
  });
}

bool downloading(cudaStream_t stream, std::int64_t work) {
  return std::any_of(underway.begin(), underway.end(), [&](const Underway& one) {
    return one.download && one.stream == stream && one.number <= work;
  });
}

// The host has waited for this much of a stream, and so for what that had waited for.
void waited_for(cudaStream_t stream, std::int64_t work, const std::map<cudaStream_t, std::int64_t>& seen) {
  stream->waited = std::max(stream->waited, work);
  for (const auto& [other, of_other] : seen) {
    if (streams.contains(other)) other->waited = std::max(other->waited, of_other);
  }
}

bool passed(cudaEvent_t event) {
  return event->recorded && (!streams.contains(event->stream) || event->stream->waited >= event->work);
}

bool behind_all_launches(cudaStream_t stream) {
  return std::all_of(streams.begin(), streams.end(), [&](const cudaStream_t other) {
    return other == stream || other->launched <= stream->seen[other];
  });
}

void copy_rows(char* to, std::size_t to_pitch, const char* from, std::size_t from_pitch, std::size_t width,
               std::size_t height) {
  for (std::size_t row = 0; row < height; ++row) std::memcpy(to + row * to_pitch, from + row * from_pitch, width);
}

cudaError_t download(cudaStream_t stream, const Range& source, const Range& target, const std::function<void()>& copy) {
  flush_uploads();
  finish_before(stream, {source, target});
  ++stream->work;
  stream->clock += work_seconds;
  void* const host = const_cast<void*>(target.first);
  if (target.bytes == 0) return cudaSuccess;
  if (!behind_all_launches(stream)) {
    std::memset(host, 0xFF, target.bytes);
  } else if (is_pinned(host)) {
    std::memset(host, 0xFF, target.bytes);
    if (__asan_poison_memory_region) __asan_poison_memory_region(host, target.bytes);
    underway.push_back({stream, stream->work, {target}, {}, copy, false});
  } else {
    copy();
  }
  return cudaSuccess;
}

}  // namespace

void pinned(void* memory, std::size_t bytes) {
  const Lock lock(mutex);
  flush_uploads();
  if (bytes > 0) {
    pinned_memory[static_cast<const char*>(memory)] = bytes;
    return;
  }
  const auto block = pinned_memory.find(static_cast<const char*>(memory));
  if (block == pinned_memory.end()) return;
  for (const auto& one : underway) {
    for (const auto& range : one.touched) {
      if (!overlap(range, {block->first, block->second})) continue;
      std::fputs("pinned memory is freed while the device may still copy to it\n", stderr);
      std::abort();
    }
  }
  pinned_memory.erase(block);
}

bool can_pin(std::size_t bytes) { return bytes <= pinned_limit; }
void set_pinned_limit(std::size_t bytes) { pinned_limit = bytes; }
void set_reads_host_pages(bool on) { late_uploads = on; }
bool reads_host_pages() { return late_uploads; }
void set_capability(int capability) { ours = capability; }
int capability() { return ours; }

void set_slow_downloads(bool on) {
  const Lock lock(mutex);
  slow_downloads = on;
  arrived.notify_all();
}

void set_clock(double seconds_of_work, double seconds_of_collective) {
  const Lock lock(mutex);
  own_clock = seconds_of_work > 0 || seconds_of_collective > 0;
  work_seconds = seconds_of_work;
  collective_seconds = seconds_of_collective;
}

bool enqueue(cudaStream_t stream, const std::function<void()>& work) {
  {
    const Lock lock(mutex);
    if (stream != nullptr && stream->captured != nullptr) {
      if (!stream->capture_failed) stream->captured->work.push_back(work);
      return !stream->capture_failed;
    }
    flush_uploads();
    if (stream) {
      finish([&](const Underway& one) { return one.stream == stream && one.download; });
      stream->launched = ++stream->work;
      stream->clock += work_seconds;
    }
  }
  work();
  return true;
}

void hand_over(cudaStream_t stream, const std::function<void()>& work) {
  if (!enqueue(stream, work)) throw Error(ExitCode::fault, "a call was handed to a stream whose capture has failed");
}

bool breaks_capture() {
  bool any = false;
  for (const auto stream : streams) {
    if (stream->captured == nullptr) continue;
    any = stream->capture_failed = true;
  }
  return any;
}

void refuse_graph(cudaError_t error) { next_graph = error; }
std::int64_t waits() { return waits_so_far; }

void finish_all() {
  const Lock lock(mutex);
  flush_uploads();
  finish([](const Underway&) { return true; });
  for (const auto stream : streams) stream->waited = stream->work;
}

std::string out_of_order(cudaStream_t stream, const std::vector<Range>& touched) {
  const Lock lock(mutex);
  if (!behind_all_launches(stream))
    return "NCCL's stream does not wait for all that another stream has got: was after() called?";
  flush_uploads();
  finish_before(stream, touched);
  return "";
}

void start(cudaStream_t stream, std::vector<Range> touched, std::vector<Written> results) {
  const Lock lock(mutex);
  ++stream->work;
  stream->clock += collective_seconds;
  for (const auto& [to, bytes] : results) std::memset(to, 0xFF, bytes.size());
  for (const auto& range : touched) {
    if (__asan_poison_memory_region) __asan_poison_memory_region(range.first, range.bytes);
  }
  underway.push_back({stream, stream->work, std::move(touched), std::move(results), {}, false});
}

void start_without_end(cudaStream_t stream) {
  const Lock lock(mutex);
  underway.push_back({stream, ++stream->work, {}, {}, {}, true});
  stream->stuck = true;
}

void give_up() { given_up = true; }

}  // namespace smlp::emulation

using namespace smlp::emulation;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const Lock lock(mutex);
  *stream = new CUstream_st;
  streams.insert(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(mutex);
  finish_all();
  std::erase_if(underway, [&](const Underway& one) { return one.stream == stream; });
  streams.erase(stream);
  for (const auto other : streams) other->seen.erase(stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Lock lock(mutex);
  if (stream != nullptr && stream->captured != nullptr && breaks_capture()) return cudaErrorStreamCaptureUnsupported;
  flush_uploads();
  if (stream == nullptr) return cudaSuccess;
  ++waits_so_far;
  while (stream->stuck && !given_up) arrived.wait_for(lock, std::chrono::milliseconds(10));
  finish_up_to(stream, stream->work);
  waited_for(stream, stream->work, stream->seen);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = new CUevent_st{.timed = (flags & cudaEventDisableTiming) == 0};
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

// An event within a graph, or a wait for one from outside of it, is more than the emulation knows.
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(mutex);
  if (stream->captured != nullptr && breaks_capture()) return cudaErrorStreamCaptureUnsupported;
  *event = {event->timed, true, std::chrono::steady_clock::now(), stream, stream->work, stream->seen, stream->clock};
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Lock lock(mutex);
  return !event->recorded || passed(event) ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  Lock lock(mutex);
  flush_uploads();
  if (!event->recorded || !streams.contains(event->stream)) return cudaSuccess;
  const cudaStream_t stream = event->stream;
  const std::int64_t work = event->work;
  const auto seen = event->seen;
  arrived.wait(lock, [&] { return !slow_downloads || !downloading(stream, work); });
  finish_up_to(stream, work);
  waited_for(stream, work, seen);
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t began, cudaEvent_t ended) {
  const Lock lock(mutex);
  for (const auto event : {began, ended}) {
    if (!event->timed || !event->recorded) return cudaErrorInvalidValue;
    if (!passed(event)) return cudaErrorNotReady;
  }
  if (own_clock) {
    *milliseconds = static_cast<float>(1e3 * (ended->clock - began->clock));
    return cudaSuccess;
  }
  *milliseconds = std::chrono::duration<float, std::milli>(ended->when - began->when).count();
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(mutex);
  if (stream->captured != nullptr && breaks_capture()) return cudaErrorStreamCaptureIsolation;
  if (event->stream == nullptr) return cudaSuccess;
  stream->clock = std::max(stream->clock, event->clock);
  auto seen = event->seen;
  auto& own = seen[event->stream];
  own = std::max(own, event->work);
  for (const auto& [other, work] : seen) {
    if (other == stream || !streams.contains(other)) continue;
    stream->seen[other] = std::max(stream->seen[other], work);
    stream->stuck = stream->stuck || endless_in(other, work);
    finish_up_to(other, work);
  }
  return cudaSuccess;
}

namespace {

cudaError_t enqueue_copy(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch, std::size_t width,
                         std::size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  const Lock lock(mutex);
  const auto copy = [=] {
    copy_rows(static_cast<char*>(to), to_pitch, static_cast<const char*>(from), from_pitch, width, height);
  };
  const auto reach = [&](std::size_t pitch) { return height > 0 ? pitch * (height - 1) + width : 0; };
  const Range source{from, reach(from_pitch)}, target{to, reach(to_pitch)};
  const bool is_upload = kind == cudaMemcpyHostToDevice, is_download = kind == cudaMemcpyDeviceToHost;
  // More than the emulation knows.
  if (stream != nullptr && stream->captured != nullptr && (is_upload || is_download) && breaks_capture())
    return cudaErrorStreamCaptureUnsupported;
  if (is_download && stream) return download(stream, source, target, copy);
  const bool taken = enqueue(stream, [=] {
    if (is_upload && (late_uploads || is_pinned(from))) return void(uploads.emplace_back(copy));
    finish_before(stream, {source, target});
    copy();
  });
  return taken ? cudaSuccess : cudaErrorStreamCaptureInvalidated;
}

}  // namespace

cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  constexpr std::size_t most_pitch = 0x7FFFFFFF;  // cudaDevAttrMaxPitch of every GPU
  if (std::max(to_pitch, from_pitch) > most_pitch) return cudaErrorInvalidValue;
  return enqueue_copy(to, to_pitch, from, from_pitch, width, height, kind, stream);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return enqueue_copy(to, bytes, from, bytes, bytes, 1, kind, stream);
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  return enqueue(stream, [=] { std::memset(to, value, bytes); }) ? cudaSuccess : cudaErrorStreamCaptureInvalidated;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = stream->captured == nullptr ? cudaStreamCaptureStatusNone
            : stream->capture_failed    ? cudaStreamCaptureStatusInvalidated
                                        : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream->captured != nullptr) return cudaErrorInvalidValue;
  stream->captured = new CUgraph_st;
  stream->capture_failed = false;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  const std::unique_ptr<CUgraph_st> captured(std::exchange(stream->captured, nullptr));
  if (captured == nullptr) return cudaErrorStreamCaptureUnmatched;
  if (stream->capture_failed) return cudaErrorStreamCaptureInvalidated;
  *graph = new CUgraph_st(*captured);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  if (const auto error = std::exchange(next_graph, cudaSuccess); error != cudaSuccess) return error;
  *executable = new CUgraphExec_st{*graph};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  for (const auto& work : executable->work) {
    if (!enqueue(stream, work)) return cudaErrorStreamCaptureInvalidated;
  }
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}
