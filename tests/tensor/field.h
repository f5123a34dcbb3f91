// A tensor for tests of a backend: its rows may be strided and its start unaligned, the bytes around and between the
// rows are guards, and its values are seen as doubles. It lies in the default memory resource, which a program may have
// replaced by one that a device reaches too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <vector>

#include "tensor/tensor_view.h"

namespace smlp::test {

double round_to(DType type, double value);

// Called before the host reads or writes a field: a device may still be at it.
extern void (*settle_fields)();

class Field {
 public:
  // `gap`: guard elements after each row (of the last dimension); `shift`: elements the start is off alignment.
  Field(Shape shape, DType type, std::int64_t gap = 0, std::int64_t shift = 1);

  TensorView view();
  void set(const std::vector<double>& values);
  void fill(double value) { set(std::vector<double>(static_cast<std::size_t>(shape_.size()), value)); }
  void randomize(std::uint64_t seed, double scale = 1);  // uniform in [-scale, scale)
  std::vector<double> get() const;
  bool guards_intact() const;
  std::vector<std::byte> bytes() const;  // guards too
  const Shape& shape() const { return shape_; }

 private:
  std::size_t place(std::int64_t element) const;  // byte offset

  Shape shape_;
  DType type_;
  std::int64_t gap_, shift_;
  std::pmr::vector<std::byte> bytes_;
};

// |got - wanted| <= tolerance * (1 + |wanted|) everywhere, NaN where NaN is wanted; says where not.
void expect_close(const char* what, const std::vector<double>& got, const std::vector<double>& wanted, double tolerance);

}  // namespace smlp::test
