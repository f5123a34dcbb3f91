// The products of a build without oneDNN and OpenBLAS. bf16 and f16 are converted: Products::run_narrow.
#include <omp.h>

#include "tensor/cpu/plain_products.h"
#include "tensor/cpu/products.h"

namespace smlp::cpu {

class Products::Primitives {};

Products::Products(const Team& team, const KernelSet& kernels) : kernels_(kernels), team_(team) {
  omp_set_num_threads(team.threads());
}

Products::~Products() = default;

void Products::multiply(const Product& p, const Matrix& out) {
  if (p.k > 0) {
    multiply_plainly(p, out);
  } else if (!p.accumulate) {
    kernels(p.out_type).fill(out, 0);
  }
}

}  // namespace smlp::cpu
