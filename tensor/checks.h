// What every verb asks of its views, said in sentences, and the views cut into the plain matrices of the kernels.
#pragma once

#include <array>
#include <initializer_list>

#include "tensor/matrix.h"
#include "tensor/tensor_view.h"

namespace smlp {

void require(bool condition, const char* verb, const char* what);
void same_shape(const char* verb, std::initializer_list<TensorView> views);
void same_type(const char* verb, std::initializer_list<TensorView> views);
void vector_of(const char* verb, const char* name, const TensorView& view, std::int64_t size, DType type);

inline Matrix as_matrix(const TensorView& view) {
  if (view.shape.rank() == 2) return {view.data, view.shape[0], view.shape[1], view.stride[0]};
  const TensorView m = view.matrix();
  return {m.data, m.shape[0], m.shape[1], m.stride[0]};
}

// Views of one shape as matrices of as many rows as all of them can merge; calls body(std::array<Matrix, n>) for each.
template <std::size_t n, class Body>
void for_each_matrix(const std::array<TensorView, n>& views, Body body) {
  const TensorView& first = views[0];
  if (first.size() == 0) return;
  const int rank = first.shape.rank();
  bool merged = true;
  for (const auto& view : views) {
    for (int i = 0; i + 2 < rank; ++i) {
      const auto outer = static_cast<std::size_t>(i);
      merged = merged && (view.shape[i] == 1 || view.stride[outer] == view.stride[outer + 1] * view.shape[i + 1]);
    }
  }
  std::array<Matrix, n> matrices;
  if (merged) {
    for (std::size_t i = 0; i < n; ++i) {
      matrices[i] = {views[i].data, views[i].rows(), views[i].width(), views[i].row_stride()};
    }
    body(matrices);
    return;
  }
  for (std::int64_t outer = 0; outer < first.shape[0]; ++outer) {
    std::array<TensorView, n> slices;
    for (std::size_t i = 0; i < n; ++i) slices[i] = views[i].slice(outer);
    for_each_matrix(slices, body);
  }
}

}  // namespace smlp
