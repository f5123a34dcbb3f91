// Views for tests of communicators, filled and read by the host.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "tensor/backend.h"

namespace smlp::test {

// Memory of the backend; without one, of the host.
class Memory {
 public:
  explicit Memory(Backend* backend) : backend_(backend) {}
  ~Memory() {
    for (void* block : blocks_) backend_ ? backend_->release(block) : std::free(block);
  }
  template <class T>
  TensorView view(const std::vector<T>& values, Shape shape, DType type) {
    const auto bytes = static_cast<std::int64_t>(values.size() * sizeof(T)) + 1;
    blocks_.push_back(backend_ ? backend_->allocate(bytes) : std::malloc(static_cast<std::size_t>(bytes)));
    TensorView view(blocks_.back(), shape, type);
    if (backend_) {
      backend_->upload(values.data(), view);
    } else {
      std::copy(values.begin(), values.end(), view.as<T>());
    }
    return view;
  }
  template <class T>
  std::vector<T> read(TensorView view) {
    std::vector<T> values(static_cast<std::size_t>(view.size()));
    if (backend_) {
      backend_->download(view, values.data());
    } else {
      std::copy_n(view.as<T>(), values.size(), values.begin());
    }
    return values;
  }

 private:
  Backend* backend_;
  std::vector<void*> blocks_;
};

}  // namespace smlp::test
