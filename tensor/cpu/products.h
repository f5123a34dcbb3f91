// Dense products: oneDNN for f32 and bf16, OpenBLAS for f64. Owned by the CPU backend; keeps one oneDNN primitive for
// each distinct shape, stride and epilogue, and the workspace they share, so that a repeated call allocates nothing.
#pragma once

#include <cstdint>
#include <memory>

#include "tensor/backend.h"
#include "tensor/cpu/kernels.h"

namespace smlp::cpu {

// out = a · b (+ out) (+ bias) (+ residual), where op(a) is [m, k] and op(b) is [k, n]. Strides in elements.
struct Product {
  std::int64_t m, n, k;
  const void *a, *b;
  void* out;
  std::int64_t a_stride, b_stride, out_stride;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  DType type = DType::f32, out_type = DType::f32;
  const void* bias = nullptr;      // [n], of `type`
  const void* residual = nullptr;  // [m, n], of `out_type`
  std::int64_t residual_stride = 0;
};

class Products {
 public:
  Products(int threads, const KernelSet& kernels);
  ~Products();

  void run(const Product& p);

 private:
  class Engine;
  void run_f64(const Product& p) const;

  const KernelSet& kernels_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace smlp::cpu
