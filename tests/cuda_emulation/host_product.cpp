#include "tests/cuda_emulation/host_product.h"

#include <cmath>
#include <vector>

#include "tensor/cuda/numbers.cuh"
#include "tests/cuda_emulation/emulator.h"

namespace smlp::emulation {
namespace {

std::int64_t multiplied = 0, ended = 0;
int algorithm_taken = 0;
Refusals refused;

DType type_of(cudaDataType_t type) {
  return type == CUDA_R_32F ? DType::f32 : type == CUDA_R_16BF ? DType::bf16 : DType::f16;
}
cuda::Numbers numbers(void* data, cudaDataType_t type) { return {data, type_of(type)}; }
float at(const Columns& m, std::int64_t i, std::int64_t j) {
  return static_cast<float>(number_at(numbers(m.data, m.type), j * m.leading + i));
}

// op(m)(r, c) as rows of k: [k][size], of which k are m's columns where `along_columns`.
std::vector<float> by_k(const Columns& m, std::int64_t k, std::int64_t size, bool along_columns) {
  std::vector<float> values(static_cast<std::size_t>(k * size));
  for (std::int64_t r = 0; r < k; ++r) {
    for (std::int64_t s = 0; s < size; ++s)
      values[static_cast<std::size_t>(r * size + s)] = along_columns ? at(m, s, r) : at(m, r, s);
  }
  return values;
}

// Of Hopper's 16-bit kernels in cuBLASLt 12.8 to 13.2: those that split a sum leave out the last k % 64 terms.
std::int64_t terms(const HostProduct& p) { return p.parts > 1 && p.a.type != CUDA_R_32F ? p.k / 64 * 64 : p.k; }

std::vector<float> sums_of(const HostProduct& p) {
  const auto a = by_k(p.a, p.k, p.m, !p.a_transposed), b = by_k(p.b, p.k, p.n, p.b_transposed);
  const std::int64_t all = terms(p);
  std::vector<float> sums(static_cast<std::size_t>(p.m * p.n));
  for (int part = 0; part < p.parts; ++part) {
    std::vector<float> some(sums.size());
    add_products(a.data(), b.data(), some.data(), p.m, p.n, all * part / p.parts, all * (part + 1) / p.parts);
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += some[i];
  }
  return sums;
}

// 1 / (1 + exp(-2 u)) as the library has it: its tanh, an instruction of the device, is good to 11 bits.
double gelu_share(double x) {
  const double exact = std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x));
  return (1 + std::ldexp(std::round(std::ldexp(exact, 11)), -11)) / 2;
}
double gelu(double x) { return x * gelu_share(x); }
double gelu_slope(double x) {
  const double s = gelu_share(x);
  return s + x * s * (1 - s) * 1.5957691216057308 * (1 + 3 * 0.044715 * x * x);
}

double ended_by(const HostProduct& p, std::int64_t i, std::int64_t j, double x) {
  const auto has = [&](std::uint32_t what) { return (p.end & what) == what; };
  if (has(CUBLASLT_EPILOGUE_BIAS)) x += number_at(numbers(p.bias, p.d.type), i);
  if (has(CUBLASLT_EPILOGUE_DGELU)) return x * gelu_slope(at(p.aux, i, j));
  if (has(CUBLASLT_EPILOGUE_GELU_AUX)) put_number(numbers(p.aux.data, p.aux.type), j * p.aux.leading + i, x);
  return has(CUBLASLT_EPILOGUE_GELU) ? gelu(x) : x;
}

void sum_columns_of_b(const HostProduct& p) {
  for (std::int64_t j = 0; j < p.n; ++j) {
    float sum = 0;
    for (std::int64_t k = 0; k < p.k; ++k) sum += p.b_transposed ? at(p.b, j, k) : at(p.b, k, j);
    put_number(numbers(p.bias, p.d.type), j, sum);
  }
}

}  // namespace

std::int64_t products() { return multiplied; }
std::int64_t products_with_ends() { return ended; }
void refuse(const Refusals& by) { refused = by; }
const Refusals& refusals() { return refused; }
int last_algorithm() { return algorithm_taken; }
void count_product(bool with_end, int algorithm) {
  algorithm_taken = algorithm;
  ++multiplied;
  ended += with_end;
}

std::int64_t bytes_of(cudaDataType_t type) { return type == CUDA_R_32F ? 4 : 2; }

void run(const HostProduct& p) {
  if (p.end == CUBLASLT_EPILOGUE_BGRADB) sum_columns_of_b(p);
  const auto sums = sums_of(p);
  for (std::int64_t j = 0; j < p.n; ++j) {
    for (std::int64_t i = 0; i < p.m; ++i) {
      double x = p.alpha * sums[static_cast<std::size_t>(j * p.m + i)];
      if (p.beta != 0) x += p.beta * at(p.c, i, j);
      put_number(numbers(p.d.data, p.d.type), j * p.d.leading + i, ended_by(p, i, j, x));
    }
  }
}

}  // namespace smlp::emulation
