#include "tensor/cuda/grouped_products.h"

#include <cublas_v2.h>

#include <algorithm>
#include <vector>

#include "tensor/cuda/blas_types.h"
#include "tensor/cuda/product_end.h"
#include "tensor/cuda/product_plan.h"

namespace smlp::cuda {

#if CUBLAS_VERSION >= 120500

namespace {

int leading(std::int64_t stride, std::int64_t width) { return static_cast<int>(std::max(stride, width)); }

}  // namespace

class GroupedProducts::Library {
 public:
  Library(cudaStream_t stream, bool tf32, void* workspace, std::size_t workspace_bytes)
      : stream_(stream), tf32_(tf32), workspace_(workspace), workspace_bytes_(workspace_bytes) {}
  ~Library() {
    if (handle_) cublasDestroy(handle_);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  bool run(const Product& p, std::span<const RowGroup> groups, const GroupTable& table) {
    if (refused_) return false;
    const cublasStatus_t ready = started(), answer = ready == CUBLAS_STATUS_SUCCESS ? multiply(p, groups, table) : ready;
    if (answer == CUBLAS_STATUS_SUCCESS) return true;
    expect_refusal(answer, stream_);
    cudaGetLastError();  // or the next call reports it
    refused_ = true;
    return false;
  }

 private:
  // When it is first needed: only jobs with rows that differ pay for it. The stream comes before the
  // workspace, which it resets.
  cublasStatus_t started() {
    if (handle_) return CUBLAS_STATUS_SUCCESS;
    const auto exact =
        static_cast<cublasMath_t>(CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION);
    cublasStatus_t status = cublasCreate(&handle_);
    if (status == CUBLAS_STATUS_SUCCESS) status = cublasSetStream(handle_, stream_);
    if (status == CUBLAS_STATUS_SUCCESS) status = cublasSetWorkspace(handle_, workspace_, workspace_bytes_);
    if (status == CUBLAS_STATUS_SUCCESS) status = cublasSetMathMode(handle_, exact);
    return status;
  }

  // The library sees columns where this house sees rows: outᵀ = op(b)ᵀ · op(a)ᵀ. Sizes and factors are read
  // from the host's memory, which stays until the next call; matrices are found through the device's.
  cublasStatus_t multiply(const Product& p, std::span<const RowGroup> groups, const GroupTable& table) {
    const std::size_t count = groups.size();
    const auto all = [count](auto& of_groups, auto value) { of_groups.assign(count, value); };
    all(m_, static_cast<int>(p.n));
    all(n_, static_cast<int>(p.m));
    all(k_, static_cast<int>(p.k));
    for (std::size_t i = 0; i < count; ++i) (p.transpose_a ? k_ : n_)[i] = static_cast<int>(groups[i].rows);
    all(a_operation_, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    all(b_operation_, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    all(a_leading_, leading(p.b_stride, p.transpose_b ? p.k : p.n));
    all(b_leading_, leading(p.a_stride, p.transpose_a ? p.m : p.k));
    all(c_leading_, leading(p.out.stride, p.n));
    all(alpha_, 1.0f);
    all(beta_, p.accumulate ? 1.0f : 0.0f);
    all(size_, 1);
    const cudaDataType_t type = data_type(p.type);
    return cublasGemmGroupedBatchedEx(handle_, a_operation_.data(), b_operation_.data(), m_.data(), n_.data(),
                                      k_.data(), alpha_.data(), table.b, type, a_leading_.data(), table.a,
                                      type, b_leading_.data(), beta_.data(), table.out, type,
                                      c_leading_.data(), static_cast<int>(count), size_.data(),
                                      sum_type(p.type, tf32_));
  }

  cudaStream_t stream_;
  bool tf32_, refused_ = false;
  void* workspace_;
  std::size_t workspace_bytes_;
  cublasHandle_t handle_ = nullptr;
  std::vector<int> m_, n_, k_, a_leading_, b_leading_, c_leading_, size_;
  std::vector<cublasOperation_t> a_operation_, b_operation_;
  std::vector<float> alpha_, beta_;
};

#else

class GroupedProducts::Library {
 public:
  Library(cudaStream_t, bool, void*, std::size_t) {}
  bool run(const Product&, std::span<const RowGroup>, const GroupTable&) { return false; }
};

#endif

GroupedProducts::GroupedProducts(cudaStream_t stream, bool tf32, void* workspace, std::size_t workspace_bytes)
    : library_(std::make_unique<Library>(stream, tf32, workspace, workspace_bytes)) {}
GroupedProducts::~GroupedProducts() = default;

bool GroupedProducts::run(const Product& p, std::span<const RowGroup> groups, const GroupTable& table) {
  return library_->run(p, groups, table);
}

}  // namespace smlp::cuda
