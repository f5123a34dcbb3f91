#include "comm/communicator.h"

#include <fmt/format.h>

#include "core/error.h"

namespace smlp {

TensorView Communicator::own_part(const TensorView& whole, const TensorView& part, const char* call) const {
  expect(whole.contiguous() && part.contiguous(), [&] { return fmt::format("{}: a view is not contiguous", call); });
  expect(whole.dtype == part.dtype && whole.size() == part.size() * size(), [&] {
    return fmt::format("{}: {} parts of {} {} are not the whole of {} {}", call, size(), part.size(), name_of(part.dtype),
                       whole.size(), name_of(whole.dtype));
  });
  return {whole.at(rank() * part.size()), part.shape, part.dtype};
}

}  // namespace smlp
