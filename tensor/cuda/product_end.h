// What a product ends with (bias, residual, gelu, the gradients of gelu and bias), by own kernels, and the
// rules by which a library is asked to do it in the product's own pass. The same for cuBLAS and for its
// stand-in in tests.
#pragma once

#include "tensor/cuda/kernels.h"
#include "tensor/cuda/products.h"

namespace smlp::cuda {

bool plain(const Product& p);                      // it ends with nothing
Product alone(const Product& p);                   // without what it ends with
Product before_gelu(const Product& p);             // with all but gelu, into pre_activation where there is one
Product one_of(const Product& p, std::int64_t i);  // of a batch of plain products
std::int64_t scratch_floats(const Product& p);

// May the library be asked? Not for what `ends` leaves to own kernels; vectors must lie on 16 bytes and have whole packs of 8,
// and sums must be f32: a library gives a bias's gradient the type of `out`.
bool library_may_end(const Product& p, ProductEnds ends);
// May the library split k among blocks? On Hopper and Blackwell cuBLASLt 12.8 to 13.2 then leave out the last
// k % 64 terms of 16-bit factors, for some sizes (k = 11,528 is the least that was seen on Hopper). And it adds a bias to
// sums that it has rounded to 16 bits.
bool library_may_split(const Product& p);
// After alone(p) was multiplied. Rows of groups take the bias of their expert.
void end(cudaStream_t stream, const Product& p, std::int64_t groups = 0, const GroupTable& table = {});
// After a library left the sums of a's columns in p.scratch [batch, m].
void add_bias_gradient(cudaStream_t stream, const Product& p);
// One product that ends with nothing, by a kernel that takes any types and addresses, and its time: where a library has none.
void multiply_plainly(cudaStream_t stream, const Product& p);

// p by a library, which multiply()s whatever ends with nothing, and may refuse to start() what ends with more: false, and
// nothing happened. Then own kernels do the rest.
template <class Start, class Multiply>
void run_with_end(cudaStream_t stream, const Product& p, ProductEnds ends, Start start, Multiply multiply) {
  if (plain(p)) return multiply(p);
  if (library_may_end(p, ends) && start(p)) return p.bias_gradient ? add_bias_gradient(stream, p) : void();
  const Product first = before_gelu(p);
  if (p.gelu && (plain(first) || library_may_end(first, ends))) {
    run_with_end(stream, first, ends, start, multiply);
    return activate(stream, p.out_type, Activation::gelu_tanh, first.out, p.out);
  }
  multiply(alone(p));
  end(stream, p);
}

// Where the product of a group begins, in elements from those of `p`.
struct GroupPlace {
  std::int64_t a, b, out;
};
GroupPlace place_of(const Product& p, const RowGroup& group);
// cublasGemmGroupedBatchedEx: one type for all, everything on 16 bytes, sizes of 31 bits.
bool library_may_group(const Product& p, std::span<const RowGroup> groups);

}  // namespace smlp::cuda
