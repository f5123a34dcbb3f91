// Thin throwing wrappers over HDF5's C interface: identifiers that close themselves, and calls whose failure
// is a sentence. Everything happens inside an Hdf5Session, so one thread of a process is in the library at a
// time.
#pragma once

#include <hdf5.h>

#include <mutex>
#include <string_view>
#include <utility>

namespace smlp {

class Hdf5Session {
 public:
  Hdf5Session();  // waits for the other threads; turns HDF5's own printing of errors off

 private:
  std::unique_lock<std::mutex> lock_;
};

// Throws Error(fault) with what was being done and HDF5's innermost reason.
[[noreturn]] void fail_hdf5(std::string_view doing);

class Hdf5Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Hdf5Handle(hid_t id, Close close, std::string_view doing) : id_(id), close_(close) {
    if (id < 0) fail_hdf5(doing);
  }
  Hdf5Handle(Hdf5Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Hdf5Handle& operator=(Hdf5Handle&&) = delete;
  ~Hdf5Handle() {
    if (id_ >= 0) close_(id_);
  }
  hid_t id() const { return id_; }
  void close(std::string_view doing) {
    if (close_(std::exchange(id_, -1)) < 0) fail_hdf5(doing);
  }

 private:
  hid_t id_;
  Close close_;
};

inline void check_hdf5(herr_t outcome, std::string_view doing) {
  if (outcome < 0) fail_hdf5(doing);
}

}  // namespace smlp
