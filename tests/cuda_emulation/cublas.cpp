// Products of several sizes in one call. Matrices are found through the device's memory, when the call runs.
#include <cublas_v2.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/error.h"
#include "tests/cuda_emulation/emulator.h"
#include "tests/cuda_emulation/host_product.h"

struct cublasContext {
  cudaStream_t stream = nullptr;
  void* workspace = nullptr;
  cublasMath_t mode = CUBLAS_DEFAULT_MATH;
};

namespace {

// Of 16-bit factors it may round sums to 16 bits unless told otherwise; and its own workspace is taken in the middle of a step.
bool is_set_up(const cublasContext& handle) {
  return handle.stream && handle.workspace && (handle.mode & CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION);
}

void expect_aligned(const void* memory) {
  if (reinterpret_cast<std::uintptr_t>(memory) % 16 != 0)
    throw smlp::Error(smlp::ExitCode::fault, "a matrix of a group does not lie on 16 bytes");
}

}  // namespace

cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  *handle = new cublasContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  *handle = {stream, nullptr, handle->mode};  // the workspace is its own again
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void* memory, std::size_t bytes) {
  if (bytes == 0 || reinterpret_cast<std::uintptr_t>(memory) % 256 != 0) return CUBLAS_STATUS_INVALID_VALUE;
  handle->workspace = memory;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  handle->mode = mode;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmGroupedBatchedEx(cublasHandle_t handle, const cublasOperation_t a_operations[],
                                          const cublasOperation_t b_operations[], const int m[], const int n[],
                                          const int k[], const void* alpha, const void* const a[], cudaDataType_t a_type,
                                          const int lda[], const void* const b[], cudaDataType_t b_type, const int ldb[],
                                          const void* beta, void* const c[], cudaDataType_t c_type, const int ldc[],
                                          int groups, const int sizes[], cublasComputeType_t sums) {
  using smlp::emulation::HostProduct;
  if (smlp::emulation::refusals().for_memory) return CUBLAS_STATUS_ALLOC_FAILED;
  if (smlp::emulation::refusals().groups || a_type != b_type || a_type != c_type) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (sums == CUBLAS_COMPUTE_32F_FAST_TF32 && a_type != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (!is_set_up(*handle)) return CUBLAS_STATUS_NOT_INITIALIZED;
  std::vector<HostProduct> all;
  for (int g = 0; g < groups; ++g) {
    HostProduct p{.m = m[g], .n = n[g], .k = k[g]};
    p.a_transposed = a_operations[g] == CUBLAS_OP_T;
    p.b_transposed = b_operations[g] == CUBLAS_OP_T;
    p.a = {nullptr, a_type, lda[g]};
    p.b = {nullptr, b_type, ldb[g]};
    p.c = p.d = {nullptr, c_type, ldc[g]};
    p.alpha = static_cast<const float*>(alpha)[g];
    p.beta = static_cast<const float*>(beta)[g];
    const bool fits = lda[g] >= (p.a_transposed ? p.k : p.m) && ldb[g] >= (p.b_transposed ? p.n : p.k) && ldc[g] >= p.m;
    if (!fits || sizes[g] != 1) return CUBLAS_STATUS_INVALID_VALUE;
    all.push_back(p);
  }
  const bool taken = smlp::emulation::enqueue(handle->stream, [=] {
    for (std::size_t g = 0; g < all.size(); ++g) {
      HostProduct p = all[g];
      p.a.data = const_cast<void*>(a[g]);
      p.b.data = const_cast<void*>(b[g]);
      p.c.data = p.d.data = c[g];
      for (const void* memory : {p.a.data, p.b.data, p.d.data}) expect_aligned(memory);
      smlp::emulation::run(p);
    }
  });
  if (!taken) return CUBLAS_STATUS_EXECUTION_FAILED;
  smlp::emulation::count_product(false);
  return CUBLAS_STATUS_SUCCESS;
}
