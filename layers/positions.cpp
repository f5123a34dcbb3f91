#include "layers/positions.h"

#include <cmath>

#include "layers/norm.h"

namespace smlp {

Positions::~Positions() {
  if (backend_ != nullptr) backend_->release(table_.data);
}

void Positions::make_table(Context& c, DType type) {
  const std::int64_t half = width_ / 2;
  const double fall = half > 1 ? std::log(10000.0) / static_cast<double>(half - 1) : 0;
  std::vector<double> values(static_cast<std::size_t>(context_ * width_), 0.0);
  for (std::int64_t p = 0; p < context_; ++p) {
    for (std::int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(p) * std::exp(-fall * static_cast<double>(i));
      values[static_cast<std::size_t>(p * width_ + i)] = std::sin(angle);
      values[static_cast<std::size_t>(p * width_ + half + i)] = std::cos(angle);
    }
  }
  const Shape shape{context_, width_};
  backend_ = &c.backend;
  table_ = TensorView(backend_->allocate(shape.size() * size_of(type)), shape, type);
  const Arena::Frame frame(c.scratch);
  const TensorView staged = c.scratch.take(shape, wide_type(type));  // rounded to narrower types by the backend
  if (staged.dtype == DType::f64) {
    backend_->upload(values.data(), staged);
  } else {
    const std::vector<float> floats(values.begin(), values.end());
    backend_->upload(floats.data(), staged);
  }
  backend_->copy(staged, table_);
  backend_->synchronize();
}

void Positions::add_to(Context& c, TensorView x) {
  if (x.rows() == 0) return;
  if (!table_) make_table(c, x.dtype);
  for (std::int64_t s = 0; s < c.sequences; ++s) {
    const TensorView sequence = x.row_range(s * c.length, c.length);
    c.backend.add(sequence, table_.row_range(0, c.length), sequence);
  }
}

}  // namespace smlp
