// One product as cuBLAS means it, on the host: d = end(op(a) op(b) + beta c), matrices column by column.
#pragma once

#include <cublasLt.h>

#include <cstdint>

namespace smlp::emulation {

struct Columns {
  void* data = nullptr;
  cudaDataType_t type = CUDA_R_32F;
  std::int64_t leading = 0;
};

struct HostProduct {
  std::int64_t m = 0, n = 0, k = 0;
  Columns a{}, b{}, c{}, d{}, aux{};
  bool a_transposed = false, b_transposed = false;
  float alpha = 1, beta = 0;
  std::uint32_t end = CUBLASLT_EPILOGUE_DEFAULT;
  void* bias = nullptr;
  int parts = 1;  // of the sum: each in f32, then added
};

void run(const HostProduct& p);
std::int64_t bytes_of(cudaDataType_t type);

void count_product(bool with_end, int algorithm = 0);  // that was enqueued: products(), products_with_ends(), last_algorithm()

// sums[j][i] += of rows a[first to last)[m] and b[first to last)[n]. The time of all tests is spent here: without sanitizers.
void add_products(const float* a, const float* b, float* sums, std::int64_t m, std::int64_t n, std::int64_t first,
                  std::int64_t last);

}  // namespace smlp::emulation
