#include "tensor/counting.h"

#include <algorithm>
#include <cstring>

namespace smlp {

void* CountingBackend::allocate(std::int64_t bytes) {
  void* address = reinterpret_cast<void*>(next_);
  next_ += static_cast<std::uintptr_t>((bytes + 127) / 64 * 64);
  held_.emplace(address, bytes);
  now_ += bytes;
  peak_ = std::max(peak_, now_);
  ++allocations_;
  return address;
}

void CountingBackend::release(void* memory) noexcept {
  const auto found = held_.find(memory);
  if (found == held_.end()) return;
  now_ -= found->second;
  held_.erase(found);
}

void CountingBackend::download(TensorView from, void* host) {
  std::memset(host, 0, static_cast<std::size_t>(from.bytes()));
}

void CountingBackend::matmul(const Matmul& m) {
  const std::int64_t depth = m.transpose_a ? m.a.rows() : m.a.width();
  multiply_adds_.paper += m.out.size() * depth;
  multiply_adds_.executed += m.out.size() * depth;
}

void CountingBackend::count(const SpatialProduct& p) {
  const std::int64_t length = p.v.shape[1];
  multiply_adds_.paper += p.v.size() * length;
  multiply_adds_.executed += p.v.size() * (length + 1) / 2;
}

void CountingBackend::count(const Attention& a, std::int64_t products) {
  const std::int64_t length = a.query.shape[1];
  multiply_adds_.paper += products * a.query.size() * length;
  multiply_adds_.executed += products * a.query.size() * (length + 1) / 2;
}

namespace {

void share_out(std::int64_t rows, std::span<std::int64_t> rows_of_expert) {
  const auto experts = static_cast<std::int64_t>(rows_of_expert.size());
  for (std::int64_t e = 0; e < experts; ++e) {
    rows_of_expert[static_cast<std::size_t>(e)] = (rows + experts - 1 - e) / experts;
  }
}

}  // namespace

void CountingBackend::assign_greedy(TensorView scores, TensorView, std::span<std::int64_t> rows_of_expert) {
  share_out(scores.rows(), rows_of_expert);
}

void CountingBackend::place_tokens(const PlaceTokens& p) { share_out(p.expert.size(), p.rows_of_expert); }

}  // namespace smlp
