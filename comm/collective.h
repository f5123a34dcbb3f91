// What every communicator asks of the views of a collective, and counts as passed on to other ranks.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/tensor_view.h"

namespace smlp {

std::int64_t row_bytes(const TensorView& view);  // of everything beneath dimension 0

// Throws Error(fault) unless rank `rank` of `ranks` can exchange these rows (Communicator::all_to_all).
void check_exchange(const TensorView& in, std::span<const std::int64_t> rows_to, const TensorView& out,
                    std::span<const std::int64_t> rows_from, int rank, int ranks);

// Payload that one rank passes on when `bytes` are reduced over all: its part of the sums, and everybody's results.
constexpr std::int64_t reduce_traffic(std::int64_t bytes, int ranks) { return 2 * bytes * (ranks - 1) / ranks; }
constexpr std::int64_t broadcast_traffic(std::int64_t bytes, int ranks, bool root) {
  return root ? bytes * (ranks - 1) : 0;
}

}  // namespace smlp
