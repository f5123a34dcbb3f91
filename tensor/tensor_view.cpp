#include "tensor/tensor_view.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "core/error.h"

namespace smlp {

std::int64_t size_of(DType type) noexcept {
  switch (type) {
    case DType::f64:
    case DType::i64: return 8;
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16:
    case DType::f16: return 2;
    case DType::u8: return 1;
  }
  return 0;
}

DType wide_type(DType values) noexcept { return values == DType::f64 ? DType::f64 : DType::f32; }

const char* name_of(DType type) noexcept {
  switch (type) {
    case DType::f64: return "f64";
    case DType::f32: return "f32";
    case DType::bf16: return "bf16";
    case DType::f16: return "f16";
    case DType::i32: return "i32";
    case DType::i64: return "i64";
    case DType::u8: return "u8";
  }
  return "?";
}

DType dtype_named(const std::string& name) {
  for (const DType type :
       {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i32, DType::i64, DType::u8}) {
    if (name == name_of(type)) return type;
  }
  throw Error(ExitCode::bad_data, fmt::format("'{}' is not a number type smlp knows", name));
}

Shape::Shape(std::span<const std::int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  expect(dims.size() <= 4, "a shape has at most four dimensions");
  std::copy(dims.begin(), dims.end(), dims_.begin());
}

Shape Shape::stacked(std::int64_t count) const {
  std::vector<std::int64_t> dims = {count};
  dims.insert(dims.end(), dims_.begin(), dims_.begin() + rank_);
  return Shape(dims);
}

std::int64_t Shape::size() const noexcept {
  std::int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= (*this)[i];
  return n;
}

std::string Shape::text() const {
  return fmt::format("[{}]", fmt::join(dims_.begin(), dims_.begin() + rank_, ", "));
}

namespace {
void set_contiguous_strides(TensorView& view) {
  std::int64_t step = 1;
  for (int i = view.shape.rank() - 1; i >= 0; --i) {
    view.stride[static_cast<std::size_t>(i)] = step;
    step *= view.shape[i];
  }
}
}  // namespace

TensorView::TensorView(void* where, Shape dims, DType type) : data(where), shape(dims), dtype(type) {
  set_contiguous_strides(*this);
}

bool TensorView::contiguous() const noexcept {
  std::int64_t step = 1;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    if (shape[i] != 1 && stride[static_cast<std::size_t>(i)] != step) return false;
    step *= shape[i];
  }
  return true;
}

TensorView TensorView::reshaped(Shape dims) const {
  expect(contiguous() && dims.size() == size(), "reshape: the view is strided or the sizes differ");
  return TensorView(data, dims, dtype);
}

TensorView TensorView::matrix() const {
  TensorView m(data, {rows(), width()}, dtype);
  m.stride[0] = row_stride();
  for (int i = 0; i + 2 < shape.rank(); ++i) {
    const auto outer = static_cast<std::size_t>(i);
    expect(shape[i] == 1 || stride[outer] == stride[outer + 1] * shape[i + 1],
           "matrix: the rows of this view do not have one common stride");
  }
  return m;
}

TensorView TensorView::row_range(std::int64_t first, std::int64_t count) const {
  expect(first >= 0 && count >= 0 && first + count <= shape[0], "row_range: outside of the view");
  TensorView part = *this;
  part.data = at(first * stride[0]);
  part.shape[0] = count;
  return part;
}

TensorView TensorView::column_range(std::int64_t first, std::int64_t count) const {
  expect(first >= 0 && count >= 0 && first + count <= width(), "column_range: outside of the view");
  TensorView part = *this;
  part.data = at(first);
  part.shape[shape.rank() - 1] = count;
  return part;
}

TensorView TensorView::slice(std::int64_t index) const {
  expect(shape.rank() > 1 && index >= 0 && index < shape[0], "slice: outside of the view");
  TensorView part;
  part.data = at(index * stride[0]);
  part.dtype = dtype;
  part.shape = Shape(shape.dims().subspan(1));
  for (std::size_t i = 0; i < 3; ++i) part.stride[i] = stride[i + 1];
  return part;
}

}  // namespace smlp
