// Work that the device keeps: captured from the stream, then launched as one CUDA graph.
#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "core/error.h"
#include "tensor/cuda/check.h"
#include "tensor/cuda/cuda_backend.h"

namespace smlp::cuda {

namespace {

class Graph final : public Recording::Kept {
 public:
  explicit Graph(cudaGraph_t captured) {
    check(cudaGraphInstantiate(&executable, captured, 0), "the recorded work could not be made ready");
  }
  ~Graph() override { cudaGraphExecDestroy(executable); }  // one that is under way ends first
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  cudaGraphExec_t executable = nullptr;
};

[[noreturn]] void refuse_in_recording(const char* what) {
  throw Error(ExitCode::fault, fmt::format("cuda: {} in work that is to be recorded", what));
}

}  // namespace

bool is_recorded(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream, &status), "the state of the stream is not known");
  return status != cudaStreamCaptureStatusNone;
}

void expect_not_recorded(cudaStream_t stream, const char* what) {
  if (is_recorded(stream)) refuse_in_recording(what);
}

void Device::not_recorded(const char* what) const {
  if (recording_) refuse_in_recording(what);
}

std::unique_ptr<Recording::Kept> Device::record(const std::function<void()>& work) {
  // Of this thread alone: others, which save a checkpoint or read a meter, may do what they like meanwhile.
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "work could not be recorded");
  const std::int64_t before = memory_changes_;
  std::exception_ptr thrown;
  recording_ = true;
  try {
    work();
  } catch (...) {
    thrown = std::current_exception();
  }
  recording_ = false;
  cudaGraph_t captured = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(stream_, &captured);
  for (void* memory : std::exchange(released_, {})) cudaFree(memory);
  const std::unique_ptr<CUgraph_st, decltype(&cudaGraphDestroy)> graph(captured, &cudaGraphDestroy);
  if (thrown) {
    cudaGetLastError();  // of a call that was refused
    std::rethrow_exception(thrown);
  }
  check(ended, "work could not be recorded");
  if (before != memory_changes_) refuse_in_recording("memory is released");
  return std::make_unique<Graph>(captured);
}

void Device::launch(Recording::Kept& kept) {
  check(cudaGraphLaunch(static_cast<Graph&>(kept).executable, stream_), "recorded work could not be started");
}

// Done plainly until nothing changes any more, at least once: the first time makes plans and loads kernels, and its
// scratch memory grows.
void CudaBackend::repeat(Recording& recording, std::span<const std::int64_t> baked_in, std::span<const WorkPart> work) {
  if (!recording.refusal.empty() || device_.recording()) return Backend::repeat(recording, baked_in, work);
  const std::int64_t memory = device_.memory_changes();
  if (recording.memory != memory || !std::equal(baked_in.begin(), baked_in.end(), recording.baked_in.begin(),
                                                recording.baked_in.end())) {
    recording.kept.clear();
    recording.memory = -1;
    Backend::repeat(recording, baked_in, work);
    recording.baked_in.assign(baked_in.begin(), baked_in.end());
    if (memory == device_.memory_changes()) recording.memory = memory;
    return;
  }
  std::size_t started = 0;
  try {
    if (recording.kept.empty()) {
      for (const auto& part : work) recording.kept.push_back(device_.record(part.calls));
    }
    for (; started < work.size(); ++started) {
      work[started].first();
      device_.launch(*recording.kept[started]);
    }
    ++recording.repeats;
    return;
  } catch (const std::exception& error) {
    if (started > 0) throw;  // a part has run, and can't be taken back
    recording.refusal = error.what();
    recording.kept.clear();
  }
  Backend::repeat(recording, baked_in, work);  // which says it again if it was no matter of recording
}

}  // namespace smlp::cuda
