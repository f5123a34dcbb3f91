#include "tensor/backend.h"

#include <chrono>
#include <cstdlib>
#include <new>

#include "core/error.h"

namespace smlp {

void* Backend::allocate_host(std::int64_t bytes) {
  void* memory = std::malloc(static_cast<std::size_t>(bytes > 0 ? bytes : 1));
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void Backend::start_downloads(std::span<const Download> downloads) {
  for (const auto& [from, host] : downloads) download(from, host);
}

void Backend::release_host(void* memory) noexcept { std::free(memory); }

double Backend::timed(const std::function<void()>& work) {
  synchronize();
  const auto began = std::chrono::steady_clock::now();
  work();
  synchronize();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

void Backend::matmul_grouped(const Matmul& m, std::span<const std::int64_t> rows) {
  const bool weight_gradient = m.transpose_a;
  std::int64_t first = 0;
  const auto part = [&](const TensorView& view, std::int64_t count) {
    return view ? view.row_range(first, count) : view;
  };
  for (std::size_t e = 0; e < rows.size(); ++e) {
    const auto index = static_cast<std::int64_t>(e);
    Matmul one = m;
    one.a = part(m.a, rows[e]);
    if (weight_gradient) {
      one.b = part(m.b, rows[e]);
      one.out = m.out.slice(index);
    } else {
      one.b = m.b.slice(index);
      one.out = part(m.out, rows[e]);
      if (m.bias) one.bias = m.bias.slice(index);
      one.residual = part(m.residual, rows[e]);
      one.pre_activation = part(m.pre_activation, rows[e]);
    }
    if (rows[e] > 0) {
      matmul(one);
    } else if (weight_gradient && !m.accumulate) {
      fill(one.out, 0);
    }
    first += rows[e];
  }
}

}  // namespace smlp
