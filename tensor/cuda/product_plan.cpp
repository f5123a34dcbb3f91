#include "tensor/cuda/product_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "tensor/cuda/blas_types.h"
#include "tensor/cuda/check.h"
#include "tensor/cuda/product_end.h"

namespace smlp::cuda {

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  if (status == CUBLAS_STATUS_ALLOC_FAILED) refuse_for_want_of_memory(what, "CUBLAS_STATUS_ALLOC_FAILED");
  throw Error(ExitCode::fault, fmt::format("cuBLASLt: {}: {}", what, cublasLtGetStatusString(status)));
}

void expect_refusal(cublasStatus_t answer, cudaStream_t stream) {
  expect_not_recorded(stream, cublasLtGetStatusString(answer));
  // Kernels are loaded when they are first called: another algorithm would be slower for good, and other bits.
  if (answer == CUBLAS_STATUS_ALLOC_FAILED) check(answer, "a product could not be begun");
  const cudaError_t device = cudaStreamQuery(stream);
  if (device == cudaErrorNotReady) cudaGetLastError();  // or the next call reports it
  else check(device, "work on the device failed");
}

namespace {

using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

constexpr int most_algorithms = 8;

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

const Matrix& added_to(const Product& p) { return p.residual.data ? p.residual : p.out; }

std::int64_t added_apart(const Product& p) { return p.residual.data ? p.m * p.residual.stride : p.out_apart; }

// Parts of a sum stay f32 until they are added.
std::uint32_t ways_to_add_parts(const Product& p) {
  if (!library_may_split(p)) return CUBLASLT_REDUCTION_SCHEME_NONE;
  return p.out_type == DType::f32 ? CUBLASLT_REDUCTION_SCHEME_MASK : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
}

// One that does not say adds no parts, and was asked to sum in one sequence: ways_to_add_parts().
bool splits(const cublasLtMatmulAlgo_t& algorithm) {
  std::int32_t parts = 1;
  std::size_t written = 0;
  const auto answer = cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts,
                                                           sizeof parts, &written);
  return answer == CUBLAS_STATUS_SUCCESS && parts > 1;
}

}  // namespace

ProductKind kind_of(const Product& p) {
  const std::int64_t what =
      p.transpose_a | p.transpose_b << 1 | p.accumulate << 2 | p.gelu << 3 | (p.bias != nullptr) << 4 |
      (p.pre_activation.data != nullptr) << 5 | (p.residual.data != nullptr) << 6 | p.gelu_gradient << 7 |
      static_cast<int>(p.type) << 8 | static_cast<int>(p.out_type) << 12 | (p.bias_gradient != nullptr) << 16;
  return {what,
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

ProductPlan::ProductPlan(cublasLtHandle_t library, const Product& p, bool tf32, std::size_t workspace_bytes) {
  if (describe(p, tf32)) choose(library, p, workspace_bytes);
}

bool ProductPlan::describe(const Product& p, bool tf32) {
  check(cublasLtMatmulDescCreate(&description_.handle, sum_type(p.type, tf32), CUDA_R_32F),
        "a product was refused");
  set(description_, CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(description_, CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  a_ = layout(p.type, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.b_stride, p.batch, p.b_apart);
  b_ = layout(p.type, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.a_stride, p.batch, p.a_apart);
  out_ = layout(p.out_type, p.m, p.n, p.out.stride, p.batch, p.out_apart);
  c_ = layout(p.out_type, p.m, p.n, added_to(p).stride, p.batch, added_apart(p));
  return end(p) && point(p);
}

// What it ends with: an older library may not know it.
bool ProductPlan::end(const Product& p) {
  const auto type = static_cast<std::int32_t>(data_type(p.bias_gradient ? DType::f32 : p.type));
  bool known = taken(description_, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue(p));
  if (p.bias || p.bias_gradient) {
    known = known && taken(description_, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type);
    if (p.batch > 1) {
      const std::int64_t apart = p.bias ? p.bias_apart : p.m;
      known = known && taken(description_, CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, apart);
    }
  }
  if (p.pre_activation.data) {
    const std::int64_t stride = p.pre_activation.stride;
    known = known && taken(description_, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, stride);
    if (p.batch > 1)
      known = known && taken(description_, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, p.m * stride);
  }
  return known;
}

bool ProductPlan::point(const Product& p) {
  const void* vector = p.bias_gradient ? p.scratch : p.bias;
  return (!vector || taken(description_, CUBLASLT_MATMUL_DESC_BIAS_POINTER, vector)) &&
         (!p.pre_activation.data ||
          taken(description_, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, p.pre_activation.data));
}

void ProductPlan::choose(cublasLtHandle_t library, const Product& p, std::size_t workspace_bytes) {
  const auto apart = [&](std::int64_t elements, DType type) {
    return p.batch > 1 ? elements * size_of(type) : 0;
  };
  Preference preference;
  check(cublasLtMatmulPreferenceCreate(&preference.handle), "no preferences can be stated");
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, ways_to_add_parts(p));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(p.b, apart(p.b_apart, p.type)));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(p.a, apart(p.a_apart, p.type)));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
      alignment_of(added_to(p).data, apart(added_apart(p), p.out_type)));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
      alignment_of(p.out.data, apart(p.out_apart, p.out_type)));
  std::array<cublasLtMatmulHeuristicResult_t, most_algorithms> offers{};
  int count = 0;
  refusal_ = cublasLtMatmulAlgoGetHeuristic(library, description_, a_, b_, c_, out_, preference,
                                            most_algorithms, offers.data(), &count);
  if (refusal_ != CUBLAS_STATUS_SUCCESS) return;
  refusal_ = CUBLAS_STATUS_NOT_SUPPORTED;
  for (int i = count - 1; i >= 0; --i) {
    const auto& offer = offers[static_cast<std::size_t>(i)];
    if (offer.state == CUBLAS_STATUS_SUCCESS && (library_may_split(p) || !splits(offer.algo)))
      algorithms_.push_back(offer.algo);
  }
}

bool ProductPlan::start(cublasLtHandle_t library, const Product& p, Workspace workspace,
                        cudaStream_t stream) {
  if (algorithms_.empty() || !point(p)) return false;
  const float one = 1, beta = p.accumulate || p.residual.data ? 1.0f : 0.0f;
  for (; !algorithms_.empty(); algorithms_.pop_back()) {
    const cublasStatus_t answer =
        cublasLtMatmul(library, description_, &one, p.b, a_, p.a, b_, &beta, added_to(p).data, c_, p.out.data,
                       out_, &algorithms_.back(), workspace.memory, workspace.bytes, stream);
    if (answer == CUBLAS_STATUS_SUCCESS) return true;
    expect_refusal(answer, stream);
    refusal_ = answer;
  }
  return false;
}

}  // namespace smlp::cuda
