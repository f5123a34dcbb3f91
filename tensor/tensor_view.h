// A place in memory with a shape: pointer, type, up to four dimensions with strides. Owns nothing; copied
// freely. The memory behind it belongs to an Arena or a ParameterStore and may be unreachable from the host:
// only a Backend may follow `data`.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace smlp {

enum class DType : std::uint8_t { f64, f32, bf16, f16, i32, i64, u8 };
std::int64_t size_of(DType type) noexcept;  // bytes
const char* name_of(DType type) noexcept;   // "f32", ...
DType dtype_named(const std::string& name);
// Of sums, means, deviations and gradients of weights, beside values of this type: f32 for f32, bf16 and f16; f64 for f64.
DType wide_type(DType values) noexcept;

class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}
  explicit Shape(std::span<const std::int64_t> dims);  // throws Error where they are more than four
  Shape stacked(std::int64_t count) const;             // [count, dims…]
  int rank() const noexcept { return rank_; }
  std::int64_t operator[](int i) const noexcept { return dims_[static_cast<std::size_t>(i)]; }
  std::int64_t& operator[](int i) noexcept { return dims_[static_cast<std::size_t>(i)]; }
  std::int64_t last() const noexcept { return rank_ == 0 ? 1 : (*this)[rank_ - 1]; }
  std::int64_t size() const noexcept;  // elements; 1 for rank 0
  bool operator==(const Shape&) const = default;
  std::string text() const;  // "[4, 512]"
  std::span<const std::int64_t> dims() const noexcept { return std::span(dims_).first(static_cast<std::size_t>(rank_)); }

 private:
  std::array<std::int64_t, 4> dims_{};
  int rank_ = 0;
};

// Elements of the innermost dimension are always adjacent; outer dimensions may be strided, so a range of
// columns, of rows, or of positions of every sequence is a view, not a copy.
struct TensorView {
  void* data = nullptr;
  Shape shape;
  std::array<std::int64_t, 4> stride{};  // in elements
  DType dtype = DType::f32;

  TensorView() = default;
  TensorView(void* where, Shape dims, DType type);  // contiguous

  explicit operator bool() const noexcept { return data != nullptr; }
  std::int64_t size() const noexcept { return shape.size(); }
  std::int64_t bytes() const noexcept { return size() * size_of(dtype); }
  std::int64_t width() const noexcept { return shape.last(); }                     // last dimension
  std::int64_t rows() const noexcept { return width() == 0 ? 0 : size() / width(); }  // all but the last
  bool contiguous() const noexcept;

  // The element `offset` elements after the first, as an address.
  void* at(std::int64_t offset) const noexcept {
    return static_cast<char*>(data) + offset * size_of(dtype);
  }
  template <class T>
  T* as() const noexcept { return static_cast<T*>(data); }

  TensorView reshaped(Shape dims) const;  // contiguous views only
  // The rows as one matrix [rows(), width()]; outer dimensions must be mergeable (one row stride).
  TensorView matrix() const;
  std::int64_t row_stride() const noexcept {
    return shape.rank() < 2 ? width() : stride[static_cast<std::size_t>(shape.rank() - 2)];
  }
  TensorView row_range(std::int64_t first, std::int64_t count) const;     // along dimension 0
  TensorView column_range(std::int64_t first, std::int64_t count) const;  // along the last dimension
  TensorView slice(std::int64_t index) const;                             // [index] of dimension 0, rank - 1
};

}  // namespace smlp
