// oneDNN's matmul primitives, one for each distinct shape, stride and type, made at first use and kept, up to a number:
// experts that get as many rows as come have new shapes for ever.
#pragma once

#include <array>
#include <dnnl.hpp>
#include <unordered_map>

#include "tensor/cpu/products.h"
#include "tensor/key_hash.h"

namespace smlp::cpu {

class Products::Primitives {
 public:
  // out = op(a) · op(b), or out += it; nothing else of `p`. Throws dnnl::error where oneDNN has no such product.
  void run(const Product& p, const Matrix& out);

 private:
  using Key = std::array<std::int64_t, 8>;
  struct Entry {
    dnnl::matmul primitive;
    dnnl::memory a, b, out;
  };
  static constexpr std::size_t most = 1024;  // of some 25 KB, made in 0.1 ms

  Entry make(const Product& p, const Matrix& out);

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::unordered_map<Key, Entry, KeyHash> entries_;
};

}  // namespace smlp::cpu
