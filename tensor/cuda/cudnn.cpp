// Flash attention by cuDNN's graphs, built with its C++ front end. The library is opened when the first attention comes, so
// that a program starts, and trains, where there is none; the front end then finds every function in it by name, and those of
// the CUDA runtime in libcudart, whose state it shares with the runtime that is linked here.
#include <dlfcn.h>

#include <unordered_map>

#include "tensor/cuda/cudnn_graph.h"

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;  // asked for by NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
}

namespace smlp::cuda {

namespace {

namespace frontend = cudnn_frontend;

// 9.8 ends the process where it plans a backward pass on Ampere or Hopper for a length that is no multiple of 128; the front
// end refuses attention by 9.10.0 and 9.10.1, for their mistakes; later ones plan all that tests/cudnn_plans asks for, which
// before 9.15.1 does not say that they compute it: too_old_for().
constexpr std::size_t least_version = 91002;

std::string version_text(std::size_t version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

void check(cudnnStatus_t status, const char* what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  throw Error(ExitCode::unavailable, fmt::format("{} ({})", what, frontend::detail::get_error_string(status)));
}

void* found_library() {
  const auto name = fmt::format("libcudnn.so.{}", CUDNN_MAJOR);
  for (const auto& path : {name, fmt::format("{}/{}", SMLP_CUDNN_FOLDER, name)}) {
    if (void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
  }
  throw Error(ExitCode::unavailable, fmt::format("{} is not here (LD_LIBRARY_PATH may name its folder)", name));
}

class CudnnPlan final : public FlashPlan {
 public:
  CudnnPlan(cudnnHandle_t handle, const FlashCall& call) : handle_(handle) {
    AttentionGraph::put(call, graph_);
    check_cudnn(graph_.build(handle_, cudnn_heuristics));
    check_cudnn(graph_.get_workspace_size(workspace_));
  }

  std::int64_t workspace_bytes() const override { return workspace_; }

  void run(const FlashCall& call, void* workspace) override {
    const std::size_t count = call.backward() ? 8 : 4;
    for (std::size_t i = 0; i < count; ++i) {
      addresses_[AttentionGraph::number(i)] = (call.*FlashCall::tensors[i]).data;
    }
    addresses_[AttentionGraph::log_sum] = call.log_sum;
    check_cudnn(graph_.execute(handle_, addresses_, workspace));
  }

 private:
  cudnnHandle_t handle_;
  frontend::graph::Graph graph_;
  std::int64_t workspace_ = 0;
  std::unordered_map<std::int64_t, void*> addresses_;
};

class Cudnn final : public FlashLibrary {
 public:
  explicit Cudnn(cudaStream_t stream) {
    check(frontend::detail::create_handle(&handle_), "cuDNN could not be started");
    check(frontend::detail::set_stream(handle_, stream), "cuDNN does not take the stream");
  }
  ~Cudnn() override { frontend::detail::destroy_handle(handle_); }
  Cudnn(const Cudnn&) = delete;
  Cudnn& operator=(const Cudnn&) = delete;

  std::string name() const override { return "cuDNN " + version_text(frontend::detail::get_backend_version()); }
  std::unique_ptr<FlashPlan> plan(const FlashCall& call) override {
    const std::string why = too_old_for({frontend::detail::get_backend_version(), CUDNN_FRONTEND_VERSION}, call);
    if (!why.empty()) throw Error(ExitCode::unavailable, why);
    return std::make_unique<CudnnPlan>(handle_, call);
  }

 private:
  cudnnHandle_t handle_ = nullptr;
};

}  // namespace

void open_cudnn() {
  if (!frontend::cudnn_dlhandle) frontend::cudnn_dlhandle = found_library();
  if (const std::size_t version = frontend::detail::get_backend_version(); version < least_version) {
    throw Error(ExitCode::unavailable, fmt::format("{} is installed, and attention takes {} or later",
                                                   version_text(version), version_text(least_version)));
  }
}

std::unique_ptr<FlashLibrary> make_flash_library(cudaStream_t stream) {
  open_cudnn();
  return std::make_unique<Cudnn>(stream);
}

}  // namespace smlp::cuda
