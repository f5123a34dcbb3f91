// Dense products on the device: cuBLASLt and cuBLAS (products.cpp, grouped_products.cpp), with what they can
// do in the same pass. Owned by the backend.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <span>

#include "tensor/backend.h"
#include "tensor/matrix.h"

namespace smlp::cuda {

// out = op(a) · op(b) + bias + residual, or out += op(a) · op(b); op(a) is [m, k] and op(b) [k, n]. `type` is
// that of a, b and bias; out and residual have out_type, which is `type` or f32. All sums are f32. With
// `gelu` (of tanh), out is the activation of that, and pre_activation, where it has memory, keeps it.
// With gelu_gradient, out = gelu'(pre_activation) · (op(a) · op(b)), and there is no bias, residual or gelu.
struct Product {
  std::int64_t m = 0, n = 0, k = 0;
  const void *a = nullptr, *b = nullptr;
  std::int64_t a_stride = 0, b_stride = 0;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  Matrix out{};
  DType type = DType::f32, out_type = DType::f32;
  const void* bias = nullptr;  // [n]
  Matrix residual{};           // data null: none
  bool gelu = false, gelu_gradient = false;
  Matrix pre_activation{};
  float* bias_gradient = nullptr;  // [m] += the sums of a's columns; with transpose_a and nothing else
  float* scratch = nullptr;        // with bias_gradient: scratch_floats() of memory
  // As many products, that many elements from one to the next. Where they have a bias_gradient, the rows of all a follow
  // one another (a_apart = k · a_stride). Where they have a bias, a residual or gelu, those of all out do
  // (out_apart = m · out.stride), and out, residual and pre_activation are the matrices of all.
  std::int64_t batch = 1, a_apart = 0, b_apart = 0, out_apart = 0, bias_apart = 0, bias_gradient_apart = 0;
};

// Adjacent rows that belong to one expert.
struct RowGroup {
  std::int64_t expert, first, rows;
};

// What the device has to know of groups, one element a group, in its memory.
struct GroupTable {
  const void* const* a = nullptr;
  const void* const* b = nullptr;
  void* const* out = nullptr;
  const std::int64_t *first = nullptr, *expert = nullptr;
};

class Products {
 public:
  Products(cudaStream_t stream, bool tf32, ProductEnds ends);
  ~Products();
  void run(const Product& p);
  // One product a group, all at once, where the library can; false: it can't, and nothing happened. Of `p`, a
  // is the first row's, as out is, or b with transpose_a; m, or k with transpose_a, is each group's own;
  // b_apart, or out_apart with transpose_a, leads from expert to expert. Ends with bias, residual and gelu as
  // run() does; no bias_gradient.
  bool run_grouped(const Product& p, std::span<const RowGroup> groups, const GroupTable& table);

 private:
  class Library;
  std::unique_ptr<Library> library_;
};

}  // namespace smlp::cuda
