// What a product ends with (bias, residual, gelu, the gradients of gelu and bias), by own kernels, and the
// rules by which a library is asked to do it in the product's own pass. The same for cuBLAS and for its
// stand-in in tests.
#pragma once

#include "tensor/cuda/products.h"

namespace smlp::cuda {

bool plain(const Product& p);                      // it ends with nothing
Product alone(const Product& p);                   // without what it ends with
Product one_of(const Product& p, std::int64_t i);  // of a batch of plain products
std::int64_t scratch_floats(const Product& p);

// May the library be asked? Vectors must lie on 16 bytes and have whole packs of 8, and sums must be f32: a
// library gives a bias's gradient the type of `out`.
bool library_may_end(const Product& p);
// May the library split k among blocks? On Hopper and Blackwell cuBLASLt 12.8 to 13.2 then leave out the last
// k % 64 terms of 16-bit factors, for some sizes (k = 11,528 is the least that was seen on Hopper).
bool library_may_split(const Product& p);
// After alone(p) was multiplied. Rows of groups take the bias of their expert.
void end(cudaStream_t stream, const Product& p, std::int64_t groups = 0, const GroupTable& table = {});
// After a library left the sums of a's columns in p.scratch [batch, m].
void add_bias_gradient(cudaStream_t stream, const Product& p);

// Where the product of a group begins, in elements from those of `p`.
struct GroupPlace {
  std::int64_t a, b, out;
};
GroupPlace place_of(const Product& p, const RowGroup& group);
// cublasGemmGroupedBatchedEx: one type for all, everything on 16 bytes, sizes of 31 bits.
bool library_may_group(const Product& p, std::span<const RowGroup> groups);

}  // namespace smlp::cuda
