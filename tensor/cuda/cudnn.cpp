// Flash attention by cuDNN's graphs, built with its C++ front end. No other file includes the front end, whose headers
// take a minute to compile. The library is opened when the first attention comes, so that a program starts, and trains,
// where there is none; the front end then finds every function in it by name, and those of the CUDA runtime in
// libcudart, whose state it shares with the runtime that is linked here.
#include <cudnn_frontend.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <stdexcept>
#include <unordered_map>
#include <vector>

#include "core/error.h"
#include "tensor/cuda/flash_attention.h"

namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;  // asked for by NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
}

namespace smlp::cuda {

namespace {

namespace frontend = cudnn_frontend;
using Tensor = std::shared_ptr<frontend::graph::Tensor_attributes>;

// Earlier ones take the gradient of `out` to have the strides of `out`.
constexpr std::size_t least_version = 90600;

std::string version_text(std::size_t version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

void check(cudnnStatus_t status, const char* what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  throw Error(ExitCode::unavailable, fmt::format("{} ({})", what, frontend::detail::get_error_string(status)));
}

void check(frontend::error_t status) {
  if (status.is_good()) return;
  const std::string words = status.get_message();
  throw Error(ExitCode::unavailable, "cuDNN: " + words.substr(0, words.find('\n')));
}

// As the loader finds it, or where it was when this program was built. Never closed.
void open_cudnn() {
  if (frontend::cudnn_dlhandle) return;
  const auto name = fmt::format("libcudnn.so.{}", CUDNN_MAJOR);
  for (const auto& path : {name, fmt::format("{}/{}", SMLP_CUDNN_FOLDER, name)}) {
    frontend::cudnn_dlhandle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (frontend::cudnn_dlhandle) return;
  }
  throw Error(ExitCode::unavailable, fmt::format("{} is not here (LD_LIBRARY_PATH may name its folder)", name));
}

// The graph of a call. Its tensors are numbered as in FlashCall::tensors, and log_sum after them.
class CudnnPlan final : public FlashPlan {
 public:
  CudnnPlan(cudnnHandle_t handle, const FlashCall& call) : handle_(handle) {
    const auto type = call.type == DType::bf16 ? frontend::DataType_t::BFLOAT16 : frontend::DataType_t::HALF;
    graph_.set_io_data_type(type)
        .set_intermediate_data_type(frontend::DataType_t::FLOAT)
        .set_compute_data_type(frontend::DataType_t::FLOAT);
    call.backward() ? add_backward(call) : add_forward(call);
    check(graph_.build(handle_, {frontend::HeurMode_t::A, frontend::HeurMode_t::FALLBACK}));
    check(graph_.get_workspace_size(workspace_));
  }

  std::int64_t workspace_bytes() const override { return workspace_; }

  void run(const FlashCall& call, void* workspace) override {
    const std::size_t count = call.backward() ? 8 : 4;
    for (std::size_t i = 0; i < count; ++i) addresses_[number(i)] = (call.*FlashCall::tensors[i]).data;
    addresses_[log_sum] = call.log_sum;
    check(graph_.execute(handle_, addresses_, workspace));
  }

 private:
  enum : std::size_t { query, key, value, out, dout, dquery, dkey, dvalue };  // places in FlashCall::tensors
  static constexpr std::int64_t number(std::size_t place) { return static_cast<std::int64_t>(place) + 1; }
  static constexpr std::int64_t log_sum = 9;

  static std::vector<std::int64_t> dims(const FlashCall& call) {
    return {call.sequences, call.heads, call.length, call.width};
  }
  static std::vector<std::int64_t> strides(const FlashCall& call, std::size_t place) {
    const HeadTensor& t = call.*FlashCall::tensors[place];
    return {t.sequence, t.head, t.token, 1};
  }
  static std::vector<std::int64_t> log_sum_dims(const FlashCall& call) {
    return {call.sequences, call.heads, call.length, 1};
  }
  static std::vector<std::int64_t> log_sum_strides(const FlashCall& call) {
    return {call.heads * call.length, call.length, 1, 1};
  }

  Tensor input(const FlashCall& call, std::size_t place) {
    return graph_.tensor(frontend::graph::Tensor_attributes()
                             .set_name(fmt::format("tensor_{}", number(place)))
                             .set_uid(number(place))
                             .set_dim(dims(call))
                             .set_stride(strides(call, place)));
  }
  static void output(const FlashCall& call, std::size_t place, const Tensor& tensor) {
    tensor->set_output(true).set_uid(number(place)).set_dim(dims(call)).set_stride(strides(call, place));
  }

  void add_forward(const FlashCall& call) {
    auto [made, sums] = graph_.sdpa(input(call, query), input(call, key), input(call, value),
                                    frontend::graph::SDPA_attributes()
                                        .set_name("attention")
                                        .set_generate_stats(true)
                                        .set_attn_scale(call.scale)
                                        .set_diagonal_alignment(frontend::DiagonalAlignment_t::TOP_LEFT)
                                        .set_diagonal_band_right_bound(0));
    output(call, out, made);
    sums->set_output(true)
        .set_uid(log_sum)
        .set_data_type(frontend::DataType_t::FLOAT)
        .set_dim(log_sum_dims(call))
        .set_stride(log_sum_strides(call));
  }

  void add_backward(const FlashCall& call) {
    const Tensor sums = graph_.tensor(frontend::graph::Tensor_attributes()
                                          .set_name("log_sum")
                                          .set_uid(log_sum)
                                          .set_data_type(frontend::DataType_t::FLOAT)
                                          .set_dim(log_sum_dims(call))
                                          .set_stride(log_sum_strides(call)));
    auto [of_query, of_key, of_value] = graph_.sdpa_backward(
        input(call, query), input(call, key), input(call, value), input(call, out), input(call, dout), sums,
        frontend::graph::SDPA_backward_attributes()
            .set_name("attention_backward")
            .set_attn_scale(call.scale)
            .set_diagonal_alignment(frontend::DiagonalAlignment_t::TOP_LEFT)
            .set_diagonal_band_right_bound(0)
            .set_deterministic_algorithm(true));
    output(call, dquery, of_query);
    output(call, dkey, of_key);
    output(call, dvalue, of_value);
  }

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
    return std::make_unique<CudnnPlan>(handle_, call);
  }

 private:
  cudnnHandle_t handle_ = nullptr;
};

}  // namespace

std::unique_ptr<FlashLibrary> make_flash_library(cudaStream_t stream) {
  open_cudnn();
  if (const std::size_t version = frontend::detail::get_backend_version(); version < least_version) {
    throw Error(ExitCode::unavailable, fmt::format("{} is installed, and attention takes {} or later",
                                                   version_text(version), version_text(least_version)));
  }
  return std::make_unique<Cudnn>(stream);
}

}  // namespace smlp::cuda
