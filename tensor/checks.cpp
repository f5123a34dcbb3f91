#include "tensor/checks.h"

#include <fmt/format.h>

#include "core/error.h"

namespace smlp {

void require(bool condition, const char* verb, const char* what) {
  if (!condition) throw Error(ExitCode::fault, fmt::format("{}: {}", verb, what));
}

void same_shape(const char* verb, std::initializer_list<TensorView> views) {
  const Shape& shape = views.begin()->shape;
  for (const auto& view : views) {
    if (view.shape != shape) {
      throw Error(ExitCode::fault,
                  fmt::format("{}: shapes {} and {} differ", verb, shape.text(), view.shape.text()));
    }
  }
}

void same_type(const char* verb, std::initializer_list<TensorView> views) {
  const DType type = views.begin()->dtype;
  for (const auto& view : views) {
    if (view && view.dtype != type) {
      throw Error(ExitCode::fault, fmt::format("{}: values of types {} and {} do not mix", verb, name_of(type),
                                               name_of(view.dtype)));
    }
  }
}

void vector_of(const char* verb, const char* name, const TensorView& view, std::int64_t size, DType type) {
  if (view.contiguous() && view.size() == size && view.dtype == type) return;
  throw Error(ExitCode::fault, fmt::format("{}: '{}' must be {} adjacent elements of type {}, not {} of {}", verb, name,
                                           size, name_of(type), view.shape.text(), name_of(view.dtype)));
}

}  // namespace smlp
