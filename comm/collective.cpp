#include "comm/collective.h"

#include "core/error.h"

namespace smlp {

std::int64_t row_bytes(const TensorView& view) {
  std::int64_t bytes = size_of(view.dtype);
  for (int i = 1; i < view.shape.rank(); ++i) bytes *= view.shape[i];
  return bytes;
}

void check_exchange(const TensorView& in, std::span<const std::int64_t> rows_to, const TensorView& out,
                    std::span<const std::int64_t> rows_from, int rank, int ranks) {
  expect(in.contiguous() && out.contiguous(), "all_to_all: a view is not contiguous");
  expect(in.dtype == out.dtype && row_bytes(in) == row_bytes(out), "all_to_all: the rows of the two views differ");
  expect(std::ssize(rows_to) == ranks && std::ssize(rows_from) == ranks,
         "all_to_all: there must be one count of rows for each rank");
  std::int64_t sent = 0, taken = 0;
  for (std::size_t p = 0; p < rows_to.size(); ++p) {
    expect(rows_to[p] >= 0 && rows_from[p] >= 0, "all_to_all: a negative count of rows");
    sent += rows_to[p];
    taken += rows_from[p];
  }
  expect(sent <= in.shape[0] && taken <= out.shape[0],
         "all_to_all: the counts add up to more rows than a view has");
  const auto me = static_cast<std::size_t>(rank);
  expect(rows_to[me] == rows_from[me], "all_to_all: a rank must take from itself what it sends itself");
}

}  // namespace smlp
