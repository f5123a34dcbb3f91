// The product for which a library has no algorithm: a thread for each number of it.
#include "tensor/cuda/launch.cuh"
#include "tensor/cuda/product_end.h"

namespace smlp::cuda {

namespace {

// From one row or column of a factor to the next, and from one term of a sum to the next.
template <class T>
struct Factor {
  const T* data;
  std::int64_t apart, step;
};

template <class T, class Out>
struct Dot {
  Factor<T> a, b;
  std::int64_t terms;
  bool accumulate;
  Matrix out;
  template <int n>
  __device__ void at(std::int64_t r, std::int64_t c) const {
    const T *x = a.data + r * a.apart, *y = b.data + c * b.apart;
    float sum = 0;
    for (std::int64_t i = 0; i < terms; ++i) sum += widen(x[i * a.step]) * widen(y[i * b.step]);
    Out* to = row<Out>(out, r) + c;
    *to = narrow<Out>(accumulate ? widen(*to) + sum : sum);
  }
};

template <class T, class Out>
void multiply(cudaStream_t stream, const Product& p) {
  const auto factor = [](const void* data, std::int64_t stride, bool along_rows) {
    return Factor<T>{static_cast<const T*>(data), along_rows ? stride : 1, along_rows ? 1 : stride};
  };
  const Matrix out{p.out.data, p.m, p.n, p.out.stride};
  const Dot<T, Out> dot{factor(p.a, p.a_stride, !p.transpose_a), factor(p.b, p.b_stride, p.transpose_b), p.k, p.accumulate,
                        out};
  for_elements<1>(stream, std::array{out}, sizeof(Out), dot, false);
}

}  // namespace

void multiply_plainly(cudaStream_t stream, const Product& p) {
  with_type(p.type, [&](auto t) {
    using T = decltype(t);
    p.out_type == p.type ? multiply<T, T>(stream, p) : multiply<T, float>(stream, p);
  });
}

}  // namespace smlp::cuda
