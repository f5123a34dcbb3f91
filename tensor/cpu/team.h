// A rank's threads, for kernels: a range is cut into a part for each thread. What a kernel makes of a row or an element
// depends on no other one, and sums over rows are shared out by columns, so the results are the same bits for any number of
// threads. What would be done before the threads have met stays on the calling thread, as does everything where there is one.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "tensor/matrix.h"
#include "tensor/tensor_view.h"

namespace smlp::cpu {

// What an element costs a kernel, in elements of one that moves or adds. Heavy: exponentials, roots, several passes.
struct Work {
  static constexpr std::int64_t plain = 1, heavy = 4;
};

struct Share {
  std::int64_t index, first, count;
};

inline void* offset_by(void* data, std::int64_t elements, DType type) {
  return data ? static_cast<std::byte*>(data) + elements * size_of(type) : nullptr;
}
inline const void* offset_by(const void* data, std::int64_t elements, DType type) {
  return offset_by(const_cast<void*>(data), elements, type);
}
inline Matrix rows_of(const Matrix& m, DType type, const Share& share) {
  return {offset_by(m.data, share.first * m.stride, type), share.count, m.width, m.stride};
}
inline Matrix columns_of(const Matrix& m, DType type, const Share& share) {
  return {offset_by(m.data, share.first, type), m.rows, share.count, m.stride};
}

class Team {
 public:
  // Columns and elements are cut at multiples of this: of every vector, and of cache lines where memory is aligned.
  static constexpr std::int64_t unit = 64;
  // Of a part, in elements: a few microseconds, which is what it takes the threads to begin and to end together.
  static constexpr std::int64_t least_work = 16384;

  explicit Team(int threads) : threads_(threads) {}

  int threads() const { return threads_; }

  // Of a range of `count`, each of which costs `work`.
  std::int64_t parts(std::int64_t count, std::int64_t work, std::int64_t cut = 1) const {
    if (threads_ == 1) return 1;
    const std::int64_t most = std::min<std::int64_t>(threads_, (count + cut - 1) / cut);
    return std::clamp<std::int64_t>(count * work / least_work, 1, std::max<std::int64_t>(most, 1));
  }

  // body(Share) for all parts, at once; it must not throw.
  template <class Body>
  void share(std::int64_t count, std::int64_t work, const Body& body) const {
    share_in(1, count, work, body);
  }

  // The same, cut at multiples of `unit`.
  template <class Body>
  void share_columns(std::int64_t count, std::int64_t work, const Body& body) const {
    share_in(unit, count, work, body);
  }

  // body(std::array<Matrix, n>) for parts of matrices of one shape, whose elements depend on nothing but their place.
  template <std::size_t n, class Body>
  void share_elements(const std::array<Matrix, n>& whole, const std::array<DType, n>& types, std::int64_t work,
                      const Body& body) const {
    const bool few_rows = whole[0].rows < 8 * threads_;
    const auto of_part = [&](const Share& share) {
      std::array<Matrix, n> m;
      for (std::size_t i = 0; i < n; ++i) {
        m[i] = few_rows ? columns_of(whole[i], types[i], share) : rows_of(whole[i], types[i], share);
      }
      body(m);
    };
    if (threads_ == 1) return body(whole);
    few_rows ? share_columns(whole[0].width, whole[0].rows * work, of_part)
             : share(whole[0].rows, whole[0].width * work, of_part);
  }

 private:
  template <class Body>
  void share_in(std::int64_t cut, std::int64_t count, std::int64_t work, const Body& body) const {
    const std::int64_t number = parts(count, work, cut);
    if (number == 1) return body(Share{0, 0, count});
    const std::int64_t pieces = (count + cut - 1) / cut;
    const auto begin = [&](std::int64_t i) { return std::min(i * pieces / number * cut, count); };
    const auto of_part = [&](std::int64_t i) { body(Share{i, begin(i), begin(i + 1) - begin(i)}); };
    run(number, [](const void* call, std::int64_t i) { (*static_cast<const decltype(of_part)*>(call))(i); }, &of_part);
  }
  void run(std::int64_t parts, void (*part)(const void* call, std::int64_t i), const void* call) const;

  int threads_;
};

}  // namespace smlp::cpu
