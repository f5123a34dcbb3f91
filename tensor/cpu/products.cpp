#include "tensor/cpu/products.h"

#include <cblas.h>
#include <omp.h>

#include <dnnl.hpp>
#include <unordered_map>

#include "core/error.h"
#include "tensor/cpu/checks.h"

namespace smlp::cpu {

namespace {

using Key = std::array<std::int64_t, 9>;

struct KeyHash {
  std::size_t operator()(const Key& key) const noexcept {
    std::uint64_t h = 0x9E3779B97F4A7C15;
    for (const auto part : key) {
      h = (h ^ static_cast<std::uint64_t>(part)) * 0xFF51AFD7ED558CCD;
      h ^= h >> 32;
    }
    return h;
  }
};

Key key_of(const Product& p) {
  const std::int64_t flags = (p.transpose_a ? 1 : 0) | (p.transpose_b ? 2 : 0) | (p.accumulate ? 4 : 0) |
                             (p.bias ? 8 : 0) | (p.residual ? 16 : 0);
  const auto types = static_cast<std::int64_t>(p.type) * 16 + static_cast<std::int64_t>(p.out_type);
  return {p.m, p.n, p.k, p.a_stride, p.b_stride, p.out_stride, p.residual ? p.residual_stride : 0, flags, types};
}

dnnl::memory::data_type data_type(DType type) {
  return type == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

dnnl::memory::desc matrix(std::int64_t rows, std::int64_t columns, std::int64_t stride, bool transposed, DType type) {
  const dnnl::memory::dims strides = transposed ? dnnl::memory::dims{1, stride} : dnnl::memory::dims{stride, 1};
  return {{rows, columns}, data_type(type), strides};
}

}  // namespace

class Products::Engine {
 private:
  struct Entry {
    dnnl::matmul primitive;
    std::unordered_map<int, dnnl::memory> arguments;
  };

 public:
  void execute(const Product& p) {
    Entry& entry = entry_of(p);
    entry.arguments.at(DNNL_ARG_SRC).set_data_handle(const_cast<void*>(p.a));
    entry.arguments.at(DNNL_ARG_WEIGHTS).set_data_handle(const_cast<void*>(p.b));
    entry.arguments.at(DNNL_ARG_DST).set_data_handle(p.out);
    if (p.bias) entry.arguments.at(DNNL_ARG_BIAS).set_data_handle(const_cast<void*>(p.bias));
    if (p.residual) {
      entry.arguments.at(DNNL_ARG_ATTR_MULTIPLE_POST_OP(p.accumulate ? 1 : 0) | DNNL_ARG_SRC_1)
          .set_data_handle(const_cast<void*>(p.residual));
    }
    entry.primitive.execute(stream_, entry.arguments);
  }

 private:
  Entry& entry_of(const Product& p) {
    const Key key = key_of(p);
    if (const auto found = entries_.find(key); found != entries_.end()) return found->second;
    return entries_.emplace(key, make(p)).first->second;
  }

  Entry make(const Product& p) {
    const auto a = matrix(p.m, p.k, p.a_stride, p.transpose_a, p.type);
    const auto b = matrix(p.k, p.n, p.b_stride, p.transpose_b, p.type);
    const auto out = matrix(p.m, p.n, p.out_stride, false, p.out_type);
    dnnl::post_ops post;
    if (p.accumulate) post.append_sum(1.0f);
    const auto residual = matrix(p.m, p.n, p.residual ? p.residual_stride : p.n, false, p.out_type);
    if (p.residual) post.append_binary(dnnl::algorithm::binary_add, residual);
    dnnl::primitive_attr attributes;
    attributes.set_post_ops(post);
    const dnnl::memory::desc bias({1, p.n}, data_type(p.type), dnnl::memory::format_tag::ab);
    const auto description = p.bias ? dnnl::matmul::desc(a, b, bias, out) : dnnl::matmul::desc(a, b, out);
    const dnnl::matmul::primitive_desc chosen(description, attributes, engine_);
    Entry entry{dnnl::matmul(chosen), {}};
    const auto add = [&](int slot, const dnnl::memory::desc& md) {
      entry.arguments.emplace(slot, dnnl::memory(md, engine_, DNNL_MEMORY_NONE));
    };
    add(DNNL_ARG_SRC, a);
    add(DNNL_ARG_WEIGHTS, b);
    add(DNNL_ARG_DST, out);
    if (p.bias) add(DNNL_ARG_BIAS, bias);
    if (p.residual) add(DNNL_ARG_ATTR_MULTIPLE_POST_OP(p.accumulate ? 1 : 0) | DNNL_ARG_SRC_1, residual);
    return entry;
  }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::unordered_map<Key, Entry, KeyHash> entries_;
};

Products::Products(int threads, const KernelSet& kernels)
    : kernels_(kernels), engine_(std::make_unique<Engine>()) {
  omp_set_num_threads(threads);
  openblas_set_num_threads(threads);
}

Products::~Products() = default;

void Products::run(const Product& p) {
  if (p.m == 0 || p.n == 0) return;
  if (p.type == DType::f64) return run_f64(p);
  engine_->execute(p);
}

void Products::run_f64(const Product& p) const {
  const Kernels& kernels = kernels_.f64;
  const Matrix out{p.out, p.m, p.n, p.out_stride};
  if (!p.accumulate && (p.k == 0 || (!p.bias && !p.residual))) kernels.fill(out, 0);
  const auto row = [](const void* data, std::int64_t stride, std::int64_t r) {
    return const_cast<double*>(static_cast<const double*>(data) + stride * r);
  };
  if (p.bias) {  // one row at a time: the same bias for all
    for (std::int64_t r = 0; r < p.m; ++r) {
      const Matrix bias{row(p.bias, 0, 0), 1, p.n, p.n}, to{row(p.out, p.out_stride, r), 1, p.n, p.n};
      if (p.residual) {
        kernels.add({row(p.residual, p.residual_stride, r), 1, p.n, p.n}, bias, to);
      } else {
        kernels_.convert[0][0](bias, to);
      }
    }
  } else if (p.residual) {
    kernels_.convert[0][0]({row(p.residual, 0, 0), p.m, p.n, p.residual_stride}, out);
  }
  if (p.k == 0) return;
  const bool add = p.accumulate || p.bias || p.residual;
  const auto transposed = [](bool yes) { return yes ? CblasTrans : CblasNoTrans; };
  const auto size = [](std::int64_t value) { return static_cast<blasint>(value); };
  cblas_dgemm(CblasRowMajor, transposed(p.transpose_a), transposed(p.transpose_b), size(p.m), size(p.n), size(p.k),
              1.0, static_cast<const double*>(p.a), size(p.a_stride), static_cast<const double*>(p.b),
              size(p.b_stride), add ? 1.0 : 0.0, static_cast<double*>(p.out), size(p.out_stride));
}

}  // namespace smlp::cpu
