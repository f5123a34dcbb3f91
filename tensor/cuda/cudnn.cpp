// Flash attention by cuDNN's graphs, built with its C++ front end. The library is opened when the first attention comes, so
// that a program starts, and trains, where there is none; the front end then finds every function in it by name, and those of
// the CUDA runtime in libcudart, whose state it shares with the runtime that is linked here.
#include "tensor/cuda/cudnn.h"

#include <cudnn_frontend.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <unordered_map>
#include <vector>

#include "core/error.h"

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

void check_cudnn(frontend::error_t status) {
  if (status.is_good()) return;
  const std::string words = status.get_message();
  throw Error(ExitCode::unavailable, "cuDNN: " + words.substr(0, words.find('\n')));
}

const std::vector<frontend::HeurMode_t> heuristics = {frontend::HeurMode_t::A, frontend::HeurMode_t::FALLBACK};

// Attention in the terms of the front end. Tensors are numbered by their places in FlashCall::tensors, from 1 on; the sums of
// rows come after them.
class AttentionGraph {
 public:
  static constexpr std::int64_t number(std::size_t place) { return static_cast<std::int64_t>(place) + 1; }
  static constexpr std::int64_t log_sum = 9;

  // Puts what the call computes into an empty graph.
  static void put(const FlashCall& call, frontend::graph::Graph& graph) {
    const auto type = call.type == DType::bf16 ? DataType::BFLOAT16 : DataType::HALF;
    graph.set_io_data_type(type)
        .set_intermediate_data_type(DataType::FLOAT)
        .set_compute_data_type(DataType::FLOAT);
    AttentionGraph attention(graph, call);
    call.backward() ? attention.add_backward() : attention.add_forward();
  }

 private:
  AttentionGraph(frontend::graph::Graph& graph, const FlashCall& call) : graph_(graph), call_(call) {}

  using DataType = frontend::DataType_t;
  using Attributes = frontend::graph::Tensor_attributes;
  using Tensor = std::shared_ptr<Attributes>;
  enum : std::size_t { query, key, value, out, dout, dquery, dkey, dvalue };  // places in FlashCall::tensors

  // Earlier tokens and itself: the band right of the diagonal is empty.
  template <class Pass>
  Pass causal(const char* name) const {
    Pass pass;
    pass.set_name(name)
        .set_attn_scale(call_.scale)
        .set_diagonal_alignment(frontend::DiagonalAlignment_t::TOP_LEFT)
        .set_diagonal_band_right_bound(0);
    return pass;
  }

  Attributes& shape(Attributes& tensor, std::size_t place) const {
    const HeadTensor& t = call_.*FlashCall::tensors[place];
    return tensor.set_uid(number(place))
        .set_dim({call_.sequences, call_.heads, call_.length, call_.width})
        .set_stride({t.sequence, t.head, t.token, 1});
  }
  Attributes& shape_of_sums(Attributes& tensor) const {
    return tensor.set_uid(log_sum)
        .set_data_type(DataType::FLOAT)
        .set_dim({call_.sequences, call_.heads, call_.length, 1})
        .set_stride({call_.heads * call_.length, call_.length, 1, 1});
  }

  Tensor input(std::size_t place) {
    Attributes tensor;
    return graph_.tensor(shape(tensor, place).set_name(fmt::format("tensor_{}", number(place))));
  }
  void output(std::size_t place, const Tensor& tensor) { shape(*tensor, place).set_output(true); }

  void add_forward() {
    auto pass = causal<frontend::graph::SDPA_attributes>("attention");
    auto [made, sums] = graph_.sdpa(input(query), input(key), input(value), pass.set_generate_stats(true));
    output(out, made);
    shape_of_sums(*sums).set_output(true);
  }

  void add_backward() {
    Attributes tensor;
    const Tensor sums = graph_.tensor(shape_of_sums(tensor).set_name("log_sum"));
    auto pass = causal<frontend::graph::SDPA_backward_attributes>("attention_backward");
    auto [of_query, of_key, of_value] =
        graph_.sdpa_backward(input(query), input(key), input(value), input(out), input(dout), sums,
                             pass.set_deterministic_algorithm(call_.deterministic));
    output(dquery, of_query);
    output(dkey, of_key);
    output(dvalue, of_value);
  }

  frontend::graph::Graph& graph_;
  const FlashCall& call_;
};

class CudnnPlan final : public FlashPlan {
 public:
  CudnnPlan(cudnnHandle_t handle, const FlashCall& call) : handle_(handle) {
    AttentionGraph::put(call, graph_);
    check_cudnn(graph_.build(handle_, heuristics));
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

std::int64_t planned_workspace(const FlashCall& call, const DescribedGpu& gpu) {
  const auto properties = std::make_shared<frontend::DeviceProperties>();
  check_cudnn(properties->deserialize({gpu.properties.begin(), gpu.properties.end()}));
  frontend::graph::Graph graph;
  graph.set_sm_version(gpu.capability).set_device_properties(properties);
  AttentionGraph::put(call, graph);
  check_cudnn(graph.build(heuristics));
  std::int64_t bytes = 0;
  check_cudnn(graph.get_workspace_size(bytes));
  return bytes;
}

std::unique_ptr<FlashLibrary> make_flash_library(cudaStream_t stream) {
  open_cudnn();
  return std::make_unique<Cudnn>(stream);
}

}  // namespace smlp::cuda
