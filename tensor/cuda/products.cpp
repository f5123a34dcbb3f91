#include "tensor/cuda/products.h"

#include <cublasLt.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "core/error.h"
#include "tensor/cuda/check.h"
#include "tensor/cuda/blas_types.h"
#include "tensor/cuda/grouped_products.h"
#include "tensor/cuda/product_end.h"

namespace smlp::cuda {

namespace {

constexpr std::size_t workspace_bytes = std::size_t{64} << 20, most_plans = 4096;

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(ExitCode::fault, fmt::format("cuBLASLt: {}: {}", what, cublasLtGetStatusString(status)));
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
// Where the library may not know what is asked.
template <class Value>
bool taken(const Description& by, cublasLtMatmulDescAttributes_t what, const Value& value) {
  return cublasLtMatmulDescSetAttribute(by, what, &value, sizeof value) == CUBLAS_STATUS_SUCCESS;
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

// Of every matrix of a batch, `apart_bytes` from one to the next.
std::uint32_t alignment_of(const void* memory, std::int64_t apart_bytes = 0) {
  const auto bits = reinterpret_cast<std::uintptr_t>(memory) | static_cast<std::uintptr_t>(apart_bytes);
  return static_cast<std::uint32_t>(bits == 0 ? 256 : std::min<std::uintptr_t>(256, bits & (~bits + 1)));
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
  if (p.bias_gradient) return CUBLASLT_EPILOGUE_BGRADB;  // the library's B is a
  if (p.gelu_gradient) return CUBLASLT_EPILOGUE_DGELU;
  if (!p.gelu) return p.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
  if (p.pre_activation.data) return p.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
  return p.bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
}

// Everything that the choice of an algorithm hangs on.
std::vector<std::int64_t> key_of(const Product& p) {
  const std::int64_t kind =
      p.transpose_a | p.transpose_b << 1 | p.accumulate << 2 | p.gelu << 3 | (p.bias != nullptr) << 4 |
      (p.pre_activation.data != nullptr) << 5 | (p.residual.data != nullptr) << 6 | p.gelu_gradient << 7 |
      static_cast<int>(p.type) << 8 | static_cast<int>(p.out_type) << 12 | (p.bias_gradient != nullptr) << 16;
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
          p.bias_apart,
          alignment_of(p.a),
          alignment_of(p.b),
          alignment_of(p.out.data),
          alignment_of(p.residual.data),
          alignment_of(p.pre_activation.data),
          alignment_of(p.bias),
          alignment_of(p.scratch)};
}

}  // namespace

class Products::Library {
 public:
  Library(cudaStream_t stream, bool tf32) : stream_(stream), tf32_(tf32) {
    check(cublasLtCreate(&handle_), "it could not be started");
    check(cudaMalloc(&workspace_, workspace_bytes), "there is no memory for the workspace of products");
    grouped_.emplace(stream, tf32, workspace_, workspace_bytes);
  }
  ~Library() {
    grouped_.reset();
    cudaFree(workspace_);
    plans_.clear();
    cublasLtDestroy(handle_);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  // What the library can't do in the same pass is done in one more; a batch that it can't do at once, one by
  // one.
  void run(const Product& p) {
    if (plain(p)) return run_plain(p);
    if (library_may_end(p) && started(p)) return p.bias_gradient ? add_bias_gradient(stream_, p) : void();
    run_plain(alone(p));
    end(stream_, p);
  }

  bool run_grouped(const Product& p, std::span<const RowGroup> groups, const GroupTable& table) {
    if (!library_may_group(p, groups) || !grouped_->run(alone(p), groups, table)) return false;
    end(stream_, p, static_cast<std::int64_t>(groups.size()), table);
    return true;
  }

 private:
  struct Plan {
    Description description;
    Layout a, b, c, out;
    cublasLtMatmulAlgo_t algorithm{};
    bool usable = false;  // an algorithm was found, and has not been refused since
  };

  void run_plain(const Product& p) {
    if (started(p)) return;
    if (p.batch == 1) {
      throw Error(ExitCode::fault,
                  fmt::format("cuBLASLt has no way to multiply {} x {} x {} in {} to {} here ({})", p.m, p.n,
                              p.k, name_of(p.type), name_of(p.out_type), cublasLtGetStatusString(refusal_)));
    }
    for (std::int64_t i = 0; i < p.batch; ++i) run_plain(one_of(p, i));
  }

  Plan& plan_of(const Product& p) {
    auto key = key_of(p);
    const auto found = plans_.find(key);
    if (found != plans_.end()) return found->second;
    expect_not_recorded(stream_, "an algorithm for a product is chosen");
    if (plans_.size() == most_plans) plans_.clear();  // rows of experts that differ from step to step
    return plans_.emplace(std::move(key), make(p)).first->second;
  }

  // Without an algorithm where the library has none, or knows not what is asked.
  Plan make(const Product& p) {
    Plan plan;
    refusal_ = described(plan, p) ? algorithm_of(plan, p) : CUBLAS_STATUS_NOT_SUPPORTED;
    plan.usable = refusal_ == CUBLAS_STATUS_SUCCESS;
    return plan;
  }

  bool described(Plan& plan, const Product& p) {
    check(cublasLtMatmulDescCreate(&plan.description.handle, sum_type(p.type, tf32_), CUDA_R_32F), "a product was refused");
    set(plan.description, CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(plan.description, CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    plan.a =
        layout(p.type, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.b_stride, p.batch, p.b_apart);
    plan.b =
        layout(p.type, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.a_stride, p.batch, p.a_apart);
    plan.out = layout(p.out_type, p.m, p.n, p.out.stride, p.batch, p.out_apart);
    const Matrix& added = added_to(p);
    plan.c = layout(p.out_type, p.m, p.n, added.stride, p.batch,
                    p.residual.data ? p.m * added.stride : p.out_apart);
    return ended(plan, p) && pointed(plan, p);
  }

  static const Matrix& added_to(const Product& p) { return p.residual.data ? p.residual : p.out; }

  // What it ends with: an older library may not know it.
  static bool ended(const Plan& plan, const Product& p) {
    const auto type = static_cast<std::int32_t>(data_type(p.bias_gradient ? DType::f32 : p.type));
    const auto kept_type = static_cast<std::int32_t>(data_type(p.out_type));
    bool known = taken(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue(p));
    if (p.bias || p.bias_gradient) {
      known = known && taken(plan.description, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type);
      if (p.batch > 1) {
        const std::int64_t apart = p.bias ? p.bias_apart : p.m;
        known = known && taken(plan.description, CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, apart);
      }
    }
    if (p.pre_activation.data) {
      const std::int64_t stride = p.pre_activation.stride;
      known = known && taken(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, stride) &&
              taken(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, kept_type);
      if (p.batch > 1)
        known =
            known && taken(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, p.m * stride);
    }
    return known;
  }

  static bool pointed(const Plan& plan, const Product& p) {
    const void* vector = p.bias_gradient ? p.scratch : p.bias;
    return (!vector || taken(plan.description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, vector)) &&
           (!p.pre_activation.data ||
            taken(plan.description, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, p.pre_activation.data));
  }

  cublasStatus_t algorithm_of(Plan& plan, const Product& p) {
    const auto apart = [&](std::int64_t elements, DType type) {
      return p.batch > 1 ? elements * size_of(type) : 0;
    };
    Preference preference;
    check(cublasLtMatmulPreferenceCreate(&preference.handle), "no preferences can be stated");
    set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
    if (p.out_type != DType::f32)  // or parts of a long sum would be rounded to that before they are added
      set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
          static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(p.b, apart(p.b_apart, p.type)));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(p.a, apart(p.a_apart, p.type)));
    const Matrix& added = added_to(p);
    const std::int64_t added_apart = p.residual.data ? p.m * added.stride : p.out_apart;
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        alignment_of(added.data, apart(added_apart, p.out_type)));
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        alignment_of(p.out.data, apart(p.out_apart, p.out_type)));
    cublasLtMatmulHeuristicResult_t best{};
    int found = 0;
    const auto status = cublasLtMatmulAlgoGetHeuristic(handle_, plan.description, plan.a, plan.b, plan.c,
                                                       plan.out, preference, 1, &best, &found);
    plan.algorithm = best.algo;
    return status != CUBLAS_STATUS_SUCCESS ? status : found == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : best.state;
  }

  // False, and nothing happened, where the library can't.
  bool started(const Product& p) {
    Plan& plan = plan_of(p);
    if (!plan.usable || !pointed(plan, p)) return false;
    const float one = 1, beta = p.accumulate || p.residual.data ? 1.0f : 0.0f;
    refusal_ =
        cublasLtMatmul(handle_, plan.description, &one, p.b, plan.a, p.a, plan.b, &beta, added_to(p).data,
                       plan.c, p.out.data, plan.out, &plan.algorithm, workspace_, workspace_bytes, stream_);
    plan.usable = refusal_ == CUBLAS_STATUS_SUCCESS;
    return plan.usable;
  }

  cudaStream_t stream_;
  bool tf32_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::map<std::vector<std::int64_t>, Plan> plans_;
  cublasStatus_t refusal_ = CUBLAS_STATUS_SUCCESS;  // the last
  std::optional<GroupedProducts> grouped_;
};

Products::Products(cudaStream_t stream, bool tf32) : library_(std::make_unique<Library>(stream, tf32)) {}
Products::~Products() = default;

void Products::run(const Product& p) {
  if (p.m == 0 || p.n == 0 || p.batch == 0) return;
  library_->run(p);
}

bool Products::run_grouped(const Product& p, std::span<const RowGroup> groups, const GroupTable& table) {
  return library_->run_grouped(p, groups, table);
}

}  // namespace smlp::cuda
