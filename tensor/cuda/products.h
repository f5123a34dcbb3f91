// Dense products on the device: cuBLASLt (products.cpp), with what it can do in the same pass. Owned by the
// backend.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

#include "tensor/matrix.h"
#include "tensor/tensor_view.h"

namespace smlp::cuda {

// out = op(a) · op(b) + bias + residual, or out += op(a) · op(b); op(a) is [m, k] and op(b) [k, n]. `type` is
// that of a, b and bias; out and residual have out_type, which is `type` or f32. All sums are f32. With
// `gelu` (of tanh), out is the activation of that, and pre_activation, where it has memory, keeps it.
struct Product {
  std::int64_t m = 0, n = 0, k = 0;
  const void *a = nullptr, *b = nullptr;
  std::int64_t a_stride = 0, b_stride = 0;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  Matrix out{};
  DType type = DType::f32, out_type = DType::f32;
  const void* bias = nullptr;  // [n]
  Matrix residual{};           // data null: none
  bool gelu = false;
  Matrix pre_activation{};
  // As many products, that many elements from one to the next; one has neither bias nor residual nor gelu
  // then.
  std::int64_t batch = 1, a_apart = 0, b_apart = 0, out_apart = 0;
};

class Products {
 public:
  Products(cudaStream_t stream, bool tf32);
  ~Products();
  void run(const Product& p);

 private:
  class Library;
  std::unique_ptr<Library> library_;
};

}  // namespace smlp::cuda
