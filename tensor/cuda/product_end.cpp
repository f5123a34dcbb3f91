#include "tensor/cuda/product_end.h"

#include <algorithm>

namespace smlp::cuda {

namespace {

constexpr std::int64_t pack = 8, library_k = 64, aligned_bytes = 16, most_size = 0x7FFFFFFF;

bool aligned(const void* memory, std::int64_t apart_bytes = 0) {
  const auto bits = reinterpret_cast<std::uintptr_t>(memory) | static_cast<std::uintptr_t>(apart_bytes);
  return bits % aligned_bytes == 0;
}

void* after(const void* memory, std::int64_t elements, DType type) {
  return static_cast<char*>(const_cast<void*>(memory)) + elements * size_of(type);
}

// From where on own kernels do it.
ProductEnds own_from(const Product& p) {
  if (p.bias_gradient) return ProductEnds::own_bias_gradient;
  return p.gelu || p.gelu_gradient ? ProductEnds::own_gelu : ProductEnds::own;
}

}  // namespace

bool plain(const Product& p) {
  return !p.bias && !p.residual.data && !p.gelu && !p.gelu_gradient && !p.bias_gradient;
}

Product alone(const Product& p) {
  Product product = p;
  product.bias = nullptr;
  product.residual = product.pre_activation = {};
  product.gelu = product.gelu_gradient = false;
  product.bias_gradient = product.scratch = nullptr;
  return product;
}

Product before_gelu(const Product& p) {
  Product first = p;
  first.gelu = false;
  first.pre_activation = {};
  if (!p.pre_activation.data) return first;
  first.out = p.pre_activation;
  first.out.rows = p.out.rows;
  if (p.batch > 1) first.out_apart = p.m * p.pre_activation.stride;
  return first;
}

Product one_of(const Product& p, std::int64_t i) {
  Product one = p;
  one.batch = 1;
  one.a = after(p.a, i * p.a_apart, p.type);
  one.b = after(p.b, i * p.b_apart, p.type);
  one.out.data = after(p.out.data, i * p.out_apart, p.out_type);
  one.out.rows = p.m;
  return one;
}

std::int64_t scratch_floats(const Product& p) { return std::max(p.batch * p.m, column_sum_floats(p.k, p.m, p.batch)); }

bool library_may_end(const Product& p, ProductEnds ends) {
  if (ends >= own_from(p)) return false;
  // Its tanh is the hardware's, within 2^-11: as good as 16-bit numbers are, and no better.
  if ((p.gelu || p.gelu_gradient) && p.type == DType::f32) return false;
  if (p.bias_gradient) return p.out_type == DType::f32 && p.m % pack == 0 && aligned(p.scratch);
  const std::int64_t bias_bytes = p.batch > 1 ? p.bias_apart * size_of(p.type) : 0;
  const bool shifts = !p.bias || (p.type == p.out_type && aligned(p.bias, bias_bytes));
  const Matrix& kept = p.pre_activation;
  return p.n % pack == 0 && shifts && (!kept.data || (aligned(kept.data) && kept.stride % pack == 0));
}

bool library_may_split(const Product& p) {
  if (p.bias && p.out_type != DType::f32) return false;
  return p.type == DType::f32 || p.k % library_k == 0;
}

void end(cudaStream_t stream, const Product& p, std::int64_t groups, const GroupTable& table) {
  if (p.bias_gradient) {
    const Matrix a{const_cast<void*>(p.a), p.batch * p.k, p.m, p.a_stride};
    return sum_rows(stream, p.type, a, DType::f32, {p.bias_gradient, p.batch, p.bias_gradient_apart}, p.scratch);
  }
  if (p.gelu_gradient) {
    activate_backward(stream, p.out_type, Activation::gelu_tanh, p.pre_activation, p.out, p.out);
  } else if (!plain(p)) {
    RowBias bias{.data = p.bias, .apart = p.bias_apart};
    if (p.batch > 1) bias.rows = p.m;
    if (groups > 0) {
      bias.groups = groups;
      bias.first = table.first;
      bias.expert = table.expert;
    }
    finish(stream, p.type, bias, p.out_type, p.out, p.residual, p.gelu, p.pre_activation);
  }
}

void add_bias_gradient(cudaStream_t stream, const Product& p) {
  const Matrix total{p.bias_gradient, p.batch, p.m, p.bias_gradient_apart};
  add(stream, DType::f32, total, {p.scratch, p.batch, p.m, p.m}, total);
}

GroupPlace place_of(const Product& p, const RowGroup& group) {
  return {group.first * p.a_stride, p.transpose_a ? group.first * p.b_stride : group.expert * p.b_apart,
          p.transpose_a ? group.expert * p.out_apart : group.first * p.out.stride};
}

bool library_may_group(const Product& p, std::span<const RowGroup> groups) {
  if (p.type != p.out_type || p.bias_gradient || groups.size() < 2) return false;
  for (const std::int64_t size : {p.m, p.n, p.k, p.a_stride, p.b_stride, p.out.stride}) {
    if (size > most_size) return false;
  }
  for (const std::int64_t stride : {p.a_stride, p.b_stride, p.out.stride}) {
    if (stride * size_of(p.type) % aligned_bytes != 0) return false;
  }
  return std::all_of(groups.begin(), groups.end(), [&](const RowGroup& group) {
    const GroupPlace place = place_of(p, group);
    return group.rows <= most_size && aligned(after(p.a, place.a, p.type)) &&
           aligned(after(p.b, place.b, p.type)) && aligned(after(p.out.data, place.out, p.out_type));
  });
}

}  // namespace smlp::cuda
