#include "tensor/cpu/primitives.h"

namespace smlp::cpu {

namespace {

dnnl::memory::desc matrix(std::int64_t rows, std::int64_t columns, std::int64_t stride, bool transposed, DType type) {
  const dnnl::memory::dims strides = transposed ? dnnl::memory::dims{1, stride} : dnnl::memory::dims{stride, 1};
  const auto number = type == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
  return {{rows, columns}, number, strides};
}

}  // namespace

std::size_t Products::Primitives::Hash::operator()(const Key& key) const noexcept {
  std::uint64_t h = 0x9E3779B97F4A7C15;
  for (const auto part : key) {
    h = (h ^ static_cast<std::uint64_t>(part)) * 0xFF51AFD7ED558CCD;
    h ^= h >> 32;
  }
  return h;
}

void Products::Primitives::run(const Product& p, const Matrix& out) {
  const std::int64_t flags = (p.transpose_a ? 1 : 0) | (p.transpose_b ? 2 : 0) | (p.accumulate ? 4 : 0);
  const auto types = static_cast<std::int64_t>(p.type) * 16 + static_cast<std::int64_t>(p.out_type);
  const Key key{p.m, p.n, p.k, p.a_stride, p.b_stride, out.stride, flags, types};
  auto found = entries_.find(key);
  if (found == entries_.end()) {
    if (entries_.size() >= most) entries_.clear();
    found = entries_.emplace(key, make(p, out)).first;
  }
  Entry& entry = found->second;
  entry.arguments.at(DNNL_ARG_SRC).set_data_handle(const_cast<void*>(p.a));
  entry.arguments.at(DNNL_ARG_WEIGHTS).set_data_handle(const_cast<void*>(p.b));
  entry.arguments.at(DNNL_ARG_DST).set_data_handle(out.data);
  entry.primitive.execute(stream_, entry.arguments);
}

Products::Primitives::Entry Products::Primitives::make(const Product& p, const Matrix& out) {
  const auto a = matrix(p.m, p.k, p.a_stride, p.transpose_a, p.type);
  const auto b = matrix(p.k, p.n, p.b_stride, p.transpose_b, p.type);
  const auto sum = matrix(p.m, p.n, out.stride, false, p.out_type);
  dnnl::post_ops post;
  if (p.accumulate) post.append_sum(1.0f);
  dnnl::primitive_attr attributes;
  attributes.set_post_ops(post);
  const dnnl::matmul::primitive_desc chosen(dnnl::matmul::desc(a, b, sum), attributes, engine_);
  Entry entry{dnnl::matmul(chosen), {}};
  entry.arguments.emplace(DNNL_ARG_SRC, dnnl::memory(a, engine_, DNNL_MEMORY_NONE));
  entry.arguments.emplace(DNNL_ARG_WEIGHTS, dnnl::memory(b, engine_, DNNL_MEMORY_NONE));
  entry.arguments.emplace(DNNL_ARG_DST, dnnl::memory(sum, engine_, DNNL_MEMORY_NONE));
  return entry;
}

}  // namespace smlp::cpu
