#include "checkpoint/hdf5_handle.h"

#include <fmt/format.h>

#include <string>

#include "core/error.h"

namespace smlp {

namespace {

std::mutex& library_mutex() {
  static std::mutex mutex;
  return mutex;
}

herr_t keep_first(unsigned, const H5E_error2_t* error, void* text) {
  auto& reason = *static_cast<std::string*>(text);
  if (reason.empty() && error->desc != nullptr) reason = error->desc;
  return 0;
}

}  // namespace

Hdf5Session::Hdf5Session() : lock_(library_mutex()) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // per thread in thread-safe builds of the library
}

void fail_hdf5(std::string_view doing) {
  std::string reason;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &reason);
  throw Error(ExitCode::fault,
              fmt::format("HDF5: {} failed: {}", doing, reason.empty() ? "no reason given" : reason));
}

}  // namespace smlp
