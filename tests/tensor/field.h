// A tensor in host memory for tests of a backend: its rows may be strided and its start unaligned, the bytes around
// and between the rows are guards, and its values are seen as doubles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tensor/tensor_view.h"

namespace smlp::test {

double round_to(DType type, double value);

// Where fields keep their bytes: the heap, unless a program says otherwise before it makes one, for a device that can't
// reach that. settle() is called before the host looks at them.
struct FieldMemory {
  void* (*allocate)(std::size_t bytes);
  void (*release)(void* memory);
  void (*settle)();
};
void keep_fields_in(const FieldMemory& memory);
const FieldMemory& field_memory();

template <class T>
struct FieldAllocator {
  using value_type = T;
  FieldAllocator() = default;
  template <class U>
  explicit FieldAllocator(const FieldAllocator<U>&) {}
  T* allocate(std::size_t count) { return static_cast<T*>(field_memory().allocate(count * sizeof(T))); }
  void deallocate(T* memory, std::size_t) { field_memory().release(memory); }
  bool operator==(const FieldAllocator&) const = default;
};

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
  const Shape& shape() const { return shape_; }

 private:
  std::size_t place(std::int64_t element) const;  // byte offset

  Shape shape_;
  DType type_;
  std::int64_t gap_, shift_;
  std::vector<std::byte, FieldAllocator<std::byte>> bytes_;
};

// |got - wanted| <= tolerance * (1 + |wanted|) everywhere, NaN where NaN is wanted; says where not.
void expect_close(const char* what, const std::vector<double>& got, const std::vector<double>& wanted, double tolerance);

}  // namespace smlp::test
