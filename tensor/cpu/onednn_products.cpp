// The products of a build with oneDNN: f32 and bf16 by it, f64 by OpenBLAS.
#include <cblas.h>
#include <dnnl.h>
#include <fmt/format.h>
#include <omp.h>

#include <string_view>

#include "core/error.h"
#include "tensor/cpu/primitives.h"
#include "tensor/cpu/products.h"

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

Products::Products(const Team& team, const KernelSet& kernels)
    : kernels_(kernels), team_(team), primitives_(std::make_unique<Primitives>()) {
  omp_set_num_threads(team.threads());
  openblas_set_num_threads(team.threads());
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

}  // namespace smlp::cpu
