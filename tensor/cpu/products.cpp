#include "tensor/cpu/products.h"

#include <cblas.h>
#include <dnnl.h>
#include <fmt/format.h>
#include <omp.h>

#include <string_view>

#include "core/error.h"
#include "tensor/cpu/primitives.h"

namespace smlp::cpu {

namespace {

void multiply_f64(const Product& p, const Matrix& out) {
  const auto transposed = [](bool yes) { return yes ? CblasTrans : CblasNoTrans; };
  const auto size = [](std::int64_t value) { return static_cast<blasint>(value); };
  cblas_dgemm(CblasRowMajor, transposed(p.transpose_a), transposed(p.transpose_b), size(p.m), size(p.n), size(p.k), 1.0,
              static_cast<const double*>(p.a), size(p.a_stride), static_cast<const double*>(p.b), size(p.b_stride),
              p.accumulate ? 1.0 : 0.0, static_cast<double*>(out.data), size(out.stride));
}

void multiply_f32(const Product& p, const Matrix& out) {
  const auto status = dnnl_sgemm(p.transpose_a ? 'T' : 'N', p.transpose_b ? 'T' : 'N', p.m, p.n, p.k, 1.0f,
                                 static_cast<const float*>(p.a), p.a_stride, static_cast<const float*>(p.b), p.b_stride,
                                 p.accumulate ? 1.0f : 0.0f, static_cast<float*>(out.data), out.stride);
  if (status != dnnl_success) {
    throw Error(ExitCode::fault, fmt::format("oneDNN failed (status {}) at an f32 product {} x {} x {}",
                                             static_cast<int>(status), p.m, p.n, p.k));
  }
}

}  // namespace

Products::Products(int threads, const KernelSet& kernels)
    : kernels_(kernels), primitives_(std::make_unique<Primitives>()) {
  omp_set_num_threads(threads);
  openblas_set_num_threads(threads);
  if (std::string_view(kernels.name) != "avx512") return;
  alignas(64) const std::uint16_t ones[32 * 32] = {};
  alignas(64) float out[32 * 32];
  const Product trial{.m = 32, .n = 32, .k = 32, .a = ones, .b = ones, .a_stride = 32, .b_stride = 32,
                      .out = {out, 32, 32, 32}, .type = DType::bf16, .out_type = DType::f32};
  try {
    primitives_->run(trial, trial.out);
    native_bf16_ = true;
  } catch (const dnnl::error&) {
    native_bf16_ = false;  // this oneDNN has no bf16 product for this processor: convert
  }
}

Products::~Products() = default;

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

void Products::multiply(const Product& p, const Matrix& out) {
  if (p.k == 0) {
    if (!p.accumulate) kernels(p.out_type).fill(out, 0);
  } else if (p.type == DType::f64) {
    multiply_f64(p, out);
  } else if (p.type == DType::f32 && !p.transpose_a) {
    multiply_f32(p, out);
  } else {
    primitives_->run(p, out);
  }
}

// Bias, residual and activation, from a sum of the wide type.
void Products::finish(const Product& p, const Matrix& sum) {
  const bool in_place = sum.data == p.out.data;
  if (p.accumulate || (in_place && !p.bias && !p.residual.data && p.activation == Pointwise::none)) return;
  const void* bias = p.bias;
  if (bias && p.type != p.out_type) {
    bias = widen(p.type, p.bias, 1, p.n, p.n, bias_);
  }
  kernels(p.out_type).finish({sum, bias, p.residual, p.activation, p.pre_activation, p.out});
}

// A contiguous f32 copy.
void* Products::widen(DType type, const void* data, std::int64_t rows, std::int64_t width, std::int64_t stride,
                      Workspace& to) {
  void* copy = to.take(rows * width * size_of(DType::f32));
  kernels_.convert[place_of(type)][place_of(DType::f32)]({const_cast<void*>(data), rows, width, stride},
                                                         {copy, rows, width, width});
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
