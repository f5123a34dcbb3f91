#include "layers/token_shuffle.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "core/error.h"
#include "core/random.h"

namespace smlp {

void TokenShuffle::draw(Context& c) {
  const std::int64_t rows = c.rows();
  const auto sequences = exchange_.sequences();
  expect(std::all_of(sequences.begin(), sequences.end(), [&](std::int64_t n) { return n == c.sequences; }) &&
             rows % exchange_.members() == 0,
         [&] {
           return fmt::format("routing.shuffle: {} tokens cannot be dealt out evenly to {} ranks that bring as many each", rows,
                              exchange_.members());
         });
  const auto count = static_cast<std::uint64_t>(rows);
  fmt::memory_buffer name;
  fmt::format_to(std::back_inserter(name), "{} shuffle {}", name_, c.first_sequence);
  const RandomStream stream(c.seed, {name.data(), name.size()});
  const std::uint64_t key = stream.bits(static_cast<std::uint64_t>(c.step));
  drawn_order_.resize(count);
  drawn_back_.resize(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    drawn_order_[i] = static_cast<std::int32_t>(permute(i, count, key));
    drawn_back_[static_cast<std::size_t>(drawn_order_[i])] = static_cast<std::int32_t>(i);
  }
  order_ = c.scratch.take({rows}, DType::i32);
  back_ = c.scratch.take({rows}, DType::i32);
  if (rows == 0) return;
  c.backend.upload(drawn_order_.data(), order_);
  c.backend.upload(drawn_back_.data(), back_);
}

void TokenShuffle::exchange(Context& c, TensorView in, TensorView out) {
  share_.assign(static_cast<std::size_t>(exchange_.members()), in.rows() / exchange_.members());
  exchange_.all_to_all(c, in, share_, out, share_);
}

void TokenShuffle::mix(Context& c, TensorView rows, TensorView mixed) {
  if (rows.rows() == 0) return;
  if (exchange_.alone()) return c.backend.gather_rows(rows, order_, 1, {}, mixed);
  const Arena::Frame frame(c.scratch);
  const TensorView dealt = c.scratch.take(rows.shape, rows.dtype);
  c.backend.gather_rows(rows, order_, 1, {}, dealt);
  exchange(c, dealt, mixed);
}

void TokenShuffle::unmix(Context& c, TensorView mixed, TensorView rows) {
  if (rows.rows() == 0) return;
  if (exchange_.alone()) return c.backend.gather_rows(mixed, back_, 1, {}, rows);
  const Arena::Frame frame(c.scratch);
  const TensorView dealt = c.scratch.take(rows.shape, rows.dtype);
  exchange(c, mixed, dealt);
  c.backend.gather_rows(dealt, back_, 1, {}, rows);
}

}  // namespace smlp
