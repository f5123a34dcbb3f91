#include "tensor/cpu/workspace.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include "core/error.h"

namespace smlp::cpu {

void* allocate_aligned(std::int64_t bytes) {
  constexpr std::int64_t huge_page = std::int64_t{2} << 20;
  const std::int64_t alignment = bytes >= 2 * huge_page ? huge_page : 64;
  const std::int64_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* memory =
      bytes < 0 ? nullptr : std::aligned_alloc(static_cast<std::size_t>(alignment), static_cast<std::size_t>(rounded));
  if (!memory && bytes != 0) {
    throw Error(ExitCode::unavailable,
                fmt::format("this rank asked for {} bytes of memory and did not get them; use a smaller micro-batch, "
                            "a smaller model or more ranks",
                            bytes));
  }
  if (alignment == huge_page) madvise(memory, static_cast<std::size_t>(rounded), MADV_HUGEPAGE);  // only a hint
  return memory;
}

}  // namespace smlp::cpu
