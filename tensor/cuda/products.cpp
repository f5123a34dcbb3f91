#include "tensor/cuda/products.h"

#include <cublasLt.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "core/error.h"
#include "tensor/cuda/check.h"
#include "tensor/cuda/kernels.h"

namespace smlp::cuda {

namespace {

constexpr std::size_t workspace_bytes = std::size_t{64} << 20;

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(ExitCode::fault, fmt::format("cuBLASLt: {}: {}", what, cublasLtGetStatusString(status)));
}

cudaDataType_t data_type(DType type) {
  return type == DType::f32 ? CUDA_R_32F : type == DType::bf16 ? CUDA_R_16BF : CUDA_R_16F;
}

// The library's objects: made by `create`, freed by `destroy`.
template <class Handle, cublasStatus_t (*destroy)(Handle)>
class Owned {
 public:
  Owned() = default;
  Owned(Owned&& other) noexcept : handle(std::exchange(other.handle, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle, other.handle);
    return *this;
  }
  ~Owned() {
    if (handle) destroy(handle);
  }
  operator Handle() const noexcept { return handle; }
  Handle handle = nullptr;
};
using Description = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

template <class Value>
void set(const Description& to, cublasLtMatmulDescAttributes_t what, const Value& value) {
  check(cublasLtMatmulDescSetAttribute(to, what, &value, sizeof value),
        "an attribute of a product was refused");
}
template <class Value>
void set(const Layout& to, cublasLtMatrixLayoutAttribute_t what, const Value& value) {
  check(cublasLtMatrixLayoutSetAttribute(to, what, &value, sizeof value),
        "an attribute of a matrix was refused");
}
template <class Value>
void set(const Preference& to, cublasLtMatmulPreferenceAttributes_t what, const Value& value) {
  check(cublasLtMatmulPreferenceSetAttribute(to, what, &value, sizeof value), "a preference was refused");
}

std::uint32_t alignment_of(const void* memory) {
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  return static_cast<std::uint32_t>(std::min<std::uintptr_t>(256, address & (~address + 1)));
}

// The library sees columns where this house sees rows: outᵀ = op(b)ᵀ · op(a)ᵀ.
Layout layout(DType type, std::int64_t rows, std::int64_t width, std::int64_t stride, std::int64_t batch,
              std::int64_t apart) {
  Layout made;
  check(cublasLtMatrixLayoutCreate(&made.handle, data_type(type), static_cast<std::uint64_t>(width),
                                   static_cast<std::uint64_t>(rows), std::max(stride, width)),
        "a matrix was refused");
  if (batch == 1) return made;
  set(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, static_cast<std::int32_t>(batch));
  set(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, apart);
  return made;
}

cublasLtEpilogue_t epilogue(const Product& p) {
  if (!p.gelu) return p.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  if (p.pre_activation.data) return p.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
  return p.bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
}

// Everything that the choice of an algorithm hangs on.
std::vector<std::int64_t> key_of(const Product& p) {
  const std::int64_t kind = p.transpose_a | p.transpose_b << 1 | p.accumulate << 2 | p.gelu << 3 |
                            (p.bias != nullptr) << 4 | (p.pre_activation.data != nullptr) << 5 |
                            (p.residual.data != nullptr) << 6 | static_cast<int>(p.type) << 8 |
                            static_cast<int>(p.out_type) << 12;
  return {kind,
          p.m,
          p.n,
          p.k,
          p.a_stride,
          p.b_stride,
          p.out.stride,
          p.residual.stride,
          p.pre_activation.stride,
          p.batch,
          p.a_apart,
          p.b_apart,
          p.out_apart,
          alignment_of(p.a),
          alignment_of(p.b),
          alignment_of(p.out.data),
          alignment_of(p.residual.data),
          alignment_of(p.pre_activation.data),
          alignment_of(p.bias)};
}

}  // namespace

class Products::Library {
 public:
  Library(cudaStream_t stream, bool tf32) : stream_(stream), tf32_(tf32) {
    check(cublasLtCreate(&handle_), "it could not be started");
    check(cudaMalloc(&workspace_, workspace_bytes), "there is no memory for the workspace of products");
  }
  ~Library() {
    cudaFree(workspace_);
    plans_.clear();
    cublasLtDestroy(handle_);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  void run(const Product& p) {
    Plan& plan = plan_of(p);
    if (plan.whole) return start(plan, p);
    // What the library can't do in the same pass is done in one more.
    Product alone = p;
    alone.bias = nullptr;
    alone.residual = alone.pre_activation = {};
    alone.gelu = false;
    start(plan_of(alone), alone);
    finish(stream_, p.type, p.bias, p.out_type, p.out, p.residual, p.gelu, p.pre_activation);
  }

 private:
  struct Plan {
    Description description;
    Layout a, b, c, out;
    cublasLtMatmulAlgo_t algorithm{};
    bool whole = false;  // an algorithm was found
  };

  Plan& plan_of(const Product& p) {
    auto key = key_of(p);
    const auto found = plans_.find(key);
    if (found != plans_.end()) return found->second;
    // The library may be unable to choose then, and what it says would be remembered.
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    cuda::check(cudaStreamIsCapturing(stream_, &capture), "the state of the stream is not known");
    if (capture != cudaStreamCaptureStatusNone) {
      throw Error(ExitCode::fault, "cuBLASLt: a product is chosen in work that is to be recorded");
    }
    return plans_.emplace(std::move(key), make(p)).first->second;
  }

  Plan make(const Product& p) {
    Plan plan;
    const auto sums = p.type == DType::f32 && tf32_ ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    check(cublasLtMatmulDescCreate(&plan.description.handle, sums, CUDA_R_32F),
          "a product was refused");
    set(plan.description, CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(plan.description, CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue(p));
    plan.a =
        layout(p.type, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.b_stride, p.batch, p.b_apart);
    plan.b =
        layout(p.type, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.a_stride, p.batch, p.a_apart);
    plan.out = layout(p.out_type, p.m, p.n, p.out.stride, p.batch, p.out_apart);
    plan.c = layout(p.out_type, p.m, p.n, p.residual.data ? p.residual.stride : p.out.stride, p.batch,
                    p.out_apart);
    point_at(plan, p);
    Preference preference;
    check(cublasLtMatmulPreferenceCreate(&preference.handle), "no preferences can be stated");
    set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(p.b));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(p.a));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        alignment_of(p.residual.data ? p.residual.data : p.out.data));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(p.out.data));
    cublasLtMatmulHeuristicResult_t best{};
    int found = 0;
    const auto status = cublasLtMatmulAlgoGetHeuristic(handle_, plan.description, plan.a, plan.b, plan.c,
                                                       plan.out, preference, 1, &best, &found);
    plan.whole = status == CUBLAS_STATUS_SUCCESS && found > 0 && best.state == CUBLAS_STATUS_SUCCESS;
    plan.algorithm = best.algo;
    const bool plain = !p.bias && !p.residual.data && !p.gelu;
    if (!plan.whole && plain) {
      throw Error(ExitCode::fault,
                  fmt::format("cuBLASLt has no way to multiply {} x {} x {} in {} to {} here (batch of {})",
                              p.m, p.n, p.k, name_of(p.type), name_of(p.out_type), p.batch));
    }
    return plan;
  }

  void point_at(const Plan& plan, const Product& p) {
    if (p.bias) {
      set(plan.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
      set(plan.description, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE,
          static_cast<std::int32_t>(data_type(p.type)));
    }
    if (p.gelu && p.pre_activation.data) {
      set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, p.pre_activation.data);
      set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p.pre_activation.stride);
      set(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE,
          static_cast<std::int32_t>(data_type(p.out_type)));
    }
  }

  void start(const Plan& plan, const Product& p) {
    point_at(plan, p);
    const float one = 1, beta = p.accumulate || p.residual.data ? 1.0f : 0.0f;
    const void* c = p.residual.data ? p.residual.data : p.out.data;
    check(cublasLtMatmul(handle_, plan.description, &one, p.b, plan.a, p.a, plan.b, &beta, c, plan.c,
                         p.out.data, plan.out, &plan.algorithm, workspace_, workspace_bytes, stream_),
          "a product failed");
  }

  cudaStream_t stream_;
  bool tf32_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::map<std::vector<std::int64_t>, Plan> plans_;
};

Products::Products(cudaStream_t stream, bool tf32) : library_(std::make_unique<Library>(stream, tf32)) {}
Products::~Products() = default;

void Products::run(const Product& p) {
  if (p.m == 0 || p.n == 0 || p.batch == 0) return;
  library_->run(p);
}

}  // namespace smlp::cuda
