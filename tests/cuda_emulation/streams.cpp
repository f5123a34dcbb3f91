#include "tests/cuda_emulation/streams.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <thread>
#include <utility>

// Of the address sanitizer, where the program has it.
extern "C" void __asan_poison_memory_region(const volatile void*, std::size_t) __attribute__((weak));
extern "C" void __asan_unpoison_memory_region(const volatile void*, std::size_t) __attribute__((weak));

// How much work a stream has got, and up to where of each other stream's it waits.
struct CUstream_st {
  std::int64_t work = 0;
  std::map<cudaStream_t, std::int64_t> seen;
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
};

namespace smlp::emulation {

namespace {

struct Underway {
  cudaStream_t stream;
  std::int64_t number;
  std::vector<Range> touched;
  std::vector<Written> results;
  bool endless = false;
};

std::set<cudaStream_t> streams;
std::map<const char*, std::size_t> pinned_memory;
std::vector<std::function<void()>> uploads;
std::vector<Underway> underway;
std::atomic<bool> given_up = false;
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

void copy_rows(char* to, std::size_t to_pitch, const char* from, std::size_t from_pitch, std::size_t width,
               std::size_t height) {
  for (std::size_t row = 0; row < height; ++row) std::memcpy(to + row * to_pitch, from + row * from_pitch, width);
}

}  // namespace

void pinned(void* memory, std::size_t bytes) {
  flush_uploads();
  if (bytes > 0) {
    pinned_memory[static_cast<const char*>(memory)] = bytes;
  } else {
    pinned_memory.erase(static_cast<const char*>(memory));
  }
}

bool enqueue(cudaStream_t stream, const std::function<void()>& work) {
  if (stream != nullptr && stream->captured != nullptr) {
    if (!stream->capture_failed) stream->captured->work.push_back(work);
    return !stream->capture_failed;
  }
  flush_uploads();
  if (stream) ++stream->work;
  work();
  return true;
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

void finish_all() {
  flush_uploads();
  finish([](const Underway&) { return true; });
}

std::string out_of_order(cudaStream_t stream, const std::vector<Range>& touched) {
  for (const auto other : streams) {
    if (other != stream && other->work > stream->seen[other])
      return "NCCL's stream does not wait for all that another stream has got: was after() called?";
  }
  flush_uploads();
  finish_before(stream, touched);
  return "";
}

void start(cudaStream_t stream, std::vector<Range> touched, std::vector<Written> results) {
  ++stream->work;
  for (const auto& [to, bytes] : results) std::memset(to, 0xFF, bytes.size());
  for (const auto& range : touched) {
    if (__asan_poison_memory_region) __asan_poison_memory_region(range.first, range.bytes);
  }
  underway.push_back({stream, stream->work, std::move(touched), std::move(results)});
}

void start_without_end(cudaStream_t stream) {
  underway.push_back({stream, ++stream->work, {}, {}, true});
  stream->stuck = true;
}

void give_up() { given_up = true; }

}  // namespace smlp::emulation

using namespace smlp::emulation;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  streams.insert(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  finish_all();
  std::erase_if(underway, [&](const Underway& one) { return one.stream == stream; });
  streams.erase(stream);
  for (const auto other : streams) other->seen.erase(stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream != nullptr && stream->captured != nullptr && breaks_capture()) return cudaErrorStreamCaptureUnsupported;
  flush_uploads();
  if (stream == nullptr) return cudaSuccess;
  while (stream->stuck && !given_up) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  finish_up_to(stream, stream->work);
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
  if (stream->captured != nullptr && breaks_capture()) return cudaErrorStreamCaptureUnsupported;
  *event = {event->timed, true, std::chrono::steady_clock::now(), stream, stream->work, stream->seen};
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t began, cudaEvent_t ended) {
  for (const auto event : {began, ended}) {
    if (!event->timed || !event->recorded) return cudaErrorInvalidValue;
  }
  *milliseconds = std::chrono::duration<float, std::milli>(ended->when - began->when).count();
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (stream->captured != nullptr && breaks_capture()) return cudaErrorStreamCaptureIsolation;
  if (event->stream == nullptr) return cudaSuccess;
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

cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  const auto copy = [=] {
    copy_rows(static_cast<char*>(to), to_pitch, static_cast<const char*>(from), from_pitch, width, height);
  };
  const bool upload = kind == cudaMemcpyHostToDevice, download = kind == cudaMemcpyDeviceToHost;
  if (stream != nullptr && stream->captured != nullptr && ((upload && !is_pinned(from)) || (download && !is_pinned(to)))) {
    breaks_capture();
    return cudaErrorStreamCaptureUnsupported;
  }
  const bool taken = enqueue(stream, [=] {
    if (upload && is_pinned(from)) return void(uploads.emplace_back(copy));
    const auto reach = [&](std::size_t pitch) { return height > 0 ? pitch * (height - 1) + width : 0; };
    finish_before(stream, {{from, reach(from_pitch)}, {to, reach(to_pitch)}});
    copy();
  });
  return taken ? cudaSuccess : cudaErrorStreamCaptureInvalidated;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  return enqueue(stream, [=] { std::memset(to, value, bytes); }) ? cudaSuccess : cudaErrorStreamCaptureInvalidated;
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
