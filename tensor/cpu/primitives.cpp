#include "tensor/cpu/primitives.h"

namespace smlp::cpu {

namespace {

dnnl::memory::desc matrix(std::int64_t rows, std::int64_t columns, std::int64_t stride, bool transposed, DType type) {
  const dnnl::memory::dims strides = transposed ? dnnl::memory::dims{1, stride} : dnnl::memory::dims{stride, 1};
  const auto number = type == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
  return {{rows, columns}, number, strides};
}

}  // namespace

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
  entry.a.set_data_handle(const_cast<void*>(p.a));
  entry.b.set_data_handle(const_cast<void*>(p.b));
  entry.out.set_data_handle(out.data);
  // Not primitive::execute(), which makes a list of them on the heap each time.
  const std::array<dnnl_exec_arg_t, 3> arguments = {dnnl_exec_arg_t{DNNL_ARG_SRC, entry.a.get()},
                                                    {DNNL_ARG_WEIGHTS, entry.b.get()},
                                                    {DNNL_ARG_DST, entry.out.get()}};
  dnnl::error::wrap_c_api(dnnl_primitive_execute(entry.primitive.get(), stream_.get(), static_cast<int>(arguments.size()),
                                                 arguments.data()),
                          "could not execute a primitive");
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
  const auto place = [this](const dnnl::memory::desc& of) { return dnnl::memory(of, engine_, DNNL_MEMORY_NONE); };
  return {dnnl::matmul(chosen), place(a), place(b), place(sum)};
}

}  // namespace smlp::cpu
