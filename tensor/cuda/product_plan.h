// How cuBLASLt computes products of one kind: its description of them and of their matrices, and the
// algorithms that it offers, best first. Products keeps one for each kind (products.cpp).
#pragma once

#include <cublasLt.h>

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "tensor/cuda/products.h"

namespace smlp::cuda {

// Everything that the choice of an algorithm hangs on: products with equal keys share a plan.
using ProductKind = std::array<std::int64_t, 21>;
ProductKind kind_of(const Product& p);

// Throws Error(fault): "cuBLASLt: <what>: <the library's words>".
void check(cublasStatus_t status, const char* what);

// May what answered so be remembered as refused? Throws Error(fault) where the stream is being recorded, for the same call was
// no trouble outside of that, and where the device has failed, which a library only repeats in its own words.
void expect_refusal(cublasStatus_t answer, cudaStream_t stream);

struct Workspace {
  void* memory;
  std::size_t bytes;
};

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

class ProductPlan {
 public:
  ProductPlan(cublasLtHandle_t library, const Product& p, bool tf32, std::size_t workspace_bytes);

  // Of p's kind. False, and nothing happened, where the library can't: an algorithm that it refuses is not
  // tried again, and the next one is. What is no refusal (expect_refusal()) throws, and is not remembered.
  bool start(cublasLtHandle_t library, const Product& p, Workspace workspace, cudaStream_t stream);
  cublasStatus_t refusal() const { return refusal_; }  // why there is no algorithm left

 private:
  bool describe(const Product& p, bool tf32);
  bool end(const Product& p);
  bool point(const Product& p);
  void choose(cublasLtHandle_t library, const Product& p, std::size_t workspace_bytes);

  Description description_;
  Layout a_, b_, c_, out_;
  std::vector<cublasLtMatmulAlgo_t> algorithms_;  // the best is the last
  cublasStatus_t refusal_ = CUBLAS_STATUS_NOT_SUPPORTED;
};

}  // namespace smlp::cuda
