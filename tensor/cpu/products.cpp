#include "tensor/cpu/products.h"

namespace smlp::cpu {

const Kernels& Products::kernels(DType type) const {
  return kernels_.values[place_of(type)];
}

void Products::run(const Product& p) {
  if (p.m == 0 || p.n == 0) return;
  if (p.type == DType::bf16 || p.type == DType::f16) return run_narrow(p);
  const Matrix sum = p.pre_activation.data ? p.pre_activation : p.out;
  multiply(p, sum);
  finish(p, sum);
}

// Bias, residual and activation, from a sum of the wide type.
void Products::finish(const Product& p, const Matrix& sum) {
  const bool in_place = sum.data == p.out.data;
  if (p.accumulate || (in_place && !p.bias && !p.residual.data && p.activation == Pointwise::none)) return;
  const void* bias = p.bias;
  if (bias && p.type != p.out_type) {
    bias = widen(p.type, p.bias, 1, p.n, p.n, bias_);
  }
  const DType type = p.out_type, wide = wide_type(type);
  const std::int64_t work = p.n * (p.activation == Pointwise::none ? Work::plain : Work::heavy);
  team_.share(p.m, work, [&](const Share& share) {
    kernels(type).finish({rows_of(sum, wide, share), bias, rows_of(p.residual, type, share), p.activation,
                          rows_of(p.pre_activation, type, share), rows_of(p.out, type, share)});
  });
}

// A contiguous f32 copy.
void* Products::widen(DType type, const void* data, std::int64_t rows, std::int64_t width, std::int64_t stride,
                      Workspace& to) {
  void* copy = to.take(rows * width * size_of(DType::f32));
  const std::array<Matrix, 2> whole = {{{const_cast<void*>(data), rows, width, stride}, {copy, rows, width, width}}};
  team_.share_elements<2>(whole, {type, DType::f32}, Work::plain, [&](const auto& m) {
    kernels_.convert[place_of(type)][place_of(DType::f32)](m[0], m[1]);
  });
  return copy;
}

void Products::run_narrow(const Product& p) {
  Product whole = p, sum = p;
  const bool plain = !p.bias && !p.residual.data && p.activation == Pointwise::none;
  const bool native = p.type == DType::bf16 && native_bf16_;
  if (p.out_type == p.type && !(native && plain)) {  // an f32 sum first, rounded once at the end
    sum.out = {sum_.take(p.m * p.n * 4), p.m, p.n, p.n};
    sum.out_type = DType::f32;
    sum.accumulate = false;
    if (p.accumulate) whole.residual = p.out;
    whole.accumulate = false;
  }
  if (!native) {
    sum.a_stride = p.transpose_a ? p.m : p.k;
    sum.b_stride = p.transpose_b ? p.k : p.n;
    sum.a = widen(p.type, p.a, p.transpose_a ? p.k : p.m, sum.a_stride, p.a_stride, a_);
    sum.b = widen(p.type, p.b, p.transpose_b ? p.n : p.k, sum.b_stride, p.b_stride, b_);
    sum.type = DType::f32;
  }
  multiply(sum, sum.out);
  finish(whole, sum.out);
}

}  // namespace smlp::cpu
