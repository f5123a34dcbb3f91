// Dense products: oneDNN for f32 and bf16, by f32 for f16, OpenBLAS for f64 (onednn_products.cpp), or own loops in a build
// without them (no_onednn.cpp). Owned by the CPU backend. oneDNN primitives are made once for each distinct shape, stride and
// type and kept, as is the workspace, so that a repeated call allocates nothing.
#pragma once

#include <cstdint>
#include <memory>

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/team.h"
#include "tensor/cpu/workspace.h"
#include "tensor/tensor_view.h"

namespace smlp::cpu {

// out = act(op(a) · op(b) + bias + residual), or out += op(a) · op(b); op(a) is [m, k] and op(b) [k, n].
// `type` is that of a, b and bias; the rest has out_type, which is `type`, or f32 for bf16 and f16.
struct Product {
  std::int64_t m, n, k;
  const void *a, *b;
  std::int64_t a_stride, b_stride;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  Matrix out;
  DType type = DType::f32, out_type = DType::f32;
  const void* bias = nullptr;  // [n]
  Matrix residual{};           // data null: none
  Pointwise activation = Pointwise::none;
  Matrix pre_activation{};  // data null: not kept
};

class Products {
 public:
  Products(const Team& team, const KernelSet& kernels);
  ~Products();

  void run(const Product& p);

 private:
  class Primitives;
  void multiply(const Product& p, const Matrix& out);  // the product alone, or added
  void run_narrow(const Product& p);  // bf16 and f16
  void finish(const Product& p, const Matrix& sum);
  void* widen(DType type, const void* data, std::int64_t rows, std::int64_t width, std::int64_t stride, Workspace& to);
  const Kernels& kernels(DType type) const;

  const KernelSet& kernels_;
  const Team team_;
  std::unique_ptr<Primitives> primitives_;
  bool native_bf16_ = false;
  Workspace a_, b_, sum_, bias_;  // f32 copies where products are not native
};

}  // namespace smlp::cpu
