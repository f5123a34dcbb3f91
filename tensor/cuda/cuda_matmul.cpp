// Matmul as products of the device: one, one batch where all experts have as many rows, or all groups at
// once.
#include <algorithm>

#include "tensor/cuda/cuda_backend.h"
#include "tensor/cuda/product_end.h"
#include "tensor/verb_checks.h"

namespace smlp::cuda {

namespace {

// All but how often, and from where to where.
Product product_of(const Matmul& m) {
  const Matrix a = as_matrix(m.a), b = as_matrix(m.b), out = as_matrix(m.out);
  const bool gelu = m.activation == Activation::gelu_tanh;
  Product p{.m = out.rows,
            .n = out.width,
            .k = m.transpose_a ? a.rows : a.width,
            .a = a.data,
            .b = b.data,
            .a_stride = a.stride,
            .b_stride = b.stride,
            .transpose_a = m.transpose_a,
            .transpose_b = m.transpose_b,
            .accumulate = m.accumulate,
            .out = out,
            .type = m.a.dtype,
            .out_type = m.out.dtype,
            .bias = m.bias.data,
            .gelu = gelu && !m.activation_backward,
            .gelu_gradient = gelu && m.activation_backward,
            .bias_gradient = m.bias_gradient.as<float>()};
  if (m.residual) p.residual = as_matrix(m.residual);
  if (gelu && m.pre_activation) p.pre_activation = as_matrix(m.pre_activation);
  return p;
}

void check_types(const Matmul& m) {
  float_type("matmul", m.a);
  require(m.out.dtype == m.a.dtype || m.out.dtype == DType::f32, "matmul",
          "out must have the values' type, or f32");
}

// multiply(p), and around it the activations for which products have no word: `p` ends before one, or begins
// behind it.
template <class Multiply>
void with_activation(cudaStream_t stream, const Matmul& m, Product p, Multiply multiply) {
  if (m.activation == Activation::none || m.activation == Activation::gelu_tanh) return multiply(p);
  const Matrix out = p.out;
  Matrix before = m.pre_activation ? as_matrix(m.pre_activation) : out;
  before.rows = out.rows;
  if (!m.activation_backward) p.out = before;
  multiply(p);
  if (m.activation_backward) return activate_backward(stream, p.out_type, m.activation, before, out, out);
  activate(stream, p.out_type, m.activation, before, out);
}

}  // namespace

void CudaBackend::multiply(Product p) {
  if (p.m == 0 || p.batch == 0) return;
  if (p.bias_gradient) {
    begin();
    p.scratch = take<float>(scratch_floats(p));
  }
  if (p.n > 0 && p.k > 0) return products_.run(p);
  if (!p.accumulate) cuda::fill(stream(), p.out_type, p.out, 0);
  end(stream(), p);
}

void CudaBackend::matmul(const Matmul& m) {
  check_types(m);
  check_matmul(m);
  with_activation(stream(), m, product_of(m), [&](const Product& p) { multiply(p); });
}

void CudaBackend::matmul_grouped(const Matmul& m, std::span<const std::int64_t> rows) {
  check_types(m);
  check_matmul_grouped(m, rows);
  groups_.clear();
  std::int64_t all = 0;
  for (std::size_t e = 0; e < rows.size(); all += rows[e++]) {
    const auto expert = static_cast<std::int64_t>(e);
    if (rows[e] > 0) {
      groups_.push_back({expert, all, rows[e]});
    } else if (m.transpose_a && !m.accumulate) {
      fill(m.out.slice(expert), 0);
    }
  }
  if (groups_.empty()) return;
  // The product of the first expert with all rows.
  Product p = product_of(expert_product(m, 0, 0, all));
  (m.transpose_a ? p.out_apart : p.b_apart) = m.transpose_a ? m.out.stride[0] : m.b.stride[0];
  if (m.bias) p.bias_apart = m.bias.stride[0];
  if (m.bias_gradient) p.bias_gradient_apart = m.bias_gradient.stride[0];
  const bool alike =
      std::all_of(rows.begin(), rows.end(), [&](std::int64_t some) { return some == rows[0]; });
  if (alike) {
    p.batch = static_cast<std::int64_t>(rows.size());
    (m.transpose_a ? p.k : p.m) = rows[0];
    p.a_apart = rows[0] * p.a_stride;
    return with_activation(stream(), m, p, [&](Product batch) {
      (m.transpose_a ? batch.b_apart : batch.out_apart) =
          rows[0] * (m.transpose_a ? batch.b_stride : batch.out.stride);
      multiply(batch);
    });
  }
  if (!multiply_groups(m, p)) Backend::matmul_grouped(m, rows);
}

// False where they have to be multiplied one after another.
bool CudaBackend::multiply_groups(const Matmul& m, const Product& p) {
  Product product = p;
  product.bias_gradient = nullptr;
  if (product.n == 0 || product.k == 0 || product.m == 0 || !library_may_group(product, groups_))
    return false;
  const std::size_t count = groups_.size();
  words_.resize(5 * count);
  begin();
  auto* words = take<std::int64_t>(static_cast<std::int64_t>(words_.size()));
  bool multiplied = false;
  with_activation(stream(), m, product, [&](const Product& groups) {
    for (std::size_t i = 0; i < count; ++i) {
      const GroupPlace place = place_of(groups, groups_[i]);
      const auto address = [](const void* from, std::int64_t elements, DType type) {
        return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(from)) + elements * size_of(type);
      };
      words_[i] = address(groups.a, place.a, groups.type);
      words_[count + i] = address(groups.b, place.b, groups.type);
      words_[2 * count + i] = address(groups.out.data, place.out, groups.out_type);
      words_[3 * count + i] = groups_[i].first;
      words_[4 * count + i] = groups_[i].expert;
    }
    put_words(stream(), words_, words);
    const auto pointers = [&](std::size_t i) { return reinterpret_cast<void**>(words + i * count); };
    multiplied = products_.run_grouped(
        groups, groups_, {pointers(0), pointers(1), pointers(2), words + 3 * count, words + 4 * count});
  });
  if (!multiplied || !p.bias_gradient) return multiplied;
  for (const RowGroup& group : groups_) {
    sum_rows(m.a.row_range(group.first, group.rows), m.bias_gradient.slice(group.expert));
  }
  return true;
}

}  // namespace smlp::cuda
