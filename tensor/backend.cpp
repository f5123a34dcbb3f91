#include "tensor/backend.h"

#include <chrono>
#include <cstdlib>
#include <new>

#include "core/error.h"
#include "tensor/verb_checks.h"

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

void Backend::repeat(Recording&, std::span<const std::int64_t>, std::span<const WorkPart> work) {
  for (const auto& part : work) part();
}

void Backend::matmul_grouped(const Matmul& m, std::span<const std::int64_t> rows) {
  check_matmul_grouped(m, rows);
  std::int64_t first = 0;
  for (std::size_t e = 0; e < rows.size(); first += rows[e++]) {
    const Matmul one = expert_product(m, static_cast<std::int64_t>(e), first, rows[e]);
    if (rows[e] > 0) {
      matmul(one);
    } else if (m.transpose_a && !m.accumulate) {
      fill(one.out, 0);
    }
  }
}

}  // namespace smlp
