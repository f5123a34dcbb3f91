#include "checkpoint/hdf5_memory.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <new>

#if H5_VERSION_GE(1, 13, 0)
#include <H5FDdevelop.h>
#endif

namespace smlp {

namespace {

struct AccessInfo {
  SparseBytes* bytes;
};

// HDF5 sees the first member and hands back pointers to it.
struct MemoryFile {
  H5FD_t file{};
  SparseBytes* bytes = nullptr;
};

const SparseBytes& bytes_of(const H5FD_t* file) { return *reinterpret_cast<const MemoryFile*>(file)->bytes; }
SparseBytes& bytes_of(H5FD_t* file) { return *reinterpret_cast<MemoryFile*>(file)->bytes; }

// HDF5 calls these from C: they may not throw.
H5FD_t* open_file(const char*, unsigned flags, hid_t access, haddr_t) {
  const auto* info = static_cast<const AccessInfo*>(H5Pget_driver_info(access));
  auto* opened = info == nullptr ? nullptr : new (std::nothrow) MemoryFile;
  if (opened == nullptr) return nullptr;
  opened->bytes = info->bytes;
  if ((flags & H5F_ACC_TRUNC) != 0) opened->bytes->clear();
  return &opened->file;
}

herr_t close_file(H5FD_t* file) {
  delete reinterpret_cast<MemoryFile*>(file);
  return 0;
}

int compare_files(const H5FD_t* a, const H5FD_t* b) {
  const auto *first = &bytes_of(a), *second = &bytes_of(b);
  return first == second ? 0 : std::less<>()(first, second) ? -1 : 1;
}

herr_t query_features(const H5FD_t*, unsigned long* flags) {
  *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA;
  return 0;
}

haddr_t get_end(const H5FD_t* file, H5FD_mem_t) { return static_cast<haddr_t>(bytes_of(file).end()); }

herr_t set_end(H5FD_t* file, H5FD_mem_t, haddr_t end) {
  bytes_of(file).set_end(static_cast<std::int64_t>(end));
  return 0;
}

herr_t read_bytes(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t position, size_t size, void* buffer) {
  bytes_of(file).read(static_cast<std::int64_t>(position), {static_cast<std::byte*>(buffer), size});
  return 0;
}

herr_t write_bytes(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t position, size_t size, const void* buffer) {
  try {
    bytes_of(file).write(static_cast<std::int64_t>(position), {static_cast<const std::byte*>(buffer), size});
    return 0;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

hid_t memory_driver() {
  static const hid_t driver = [] {
    H5FD_class_t functions{};
#if H5_VERSION_GE(1, 13, 0)
    functions.version = H5FD_CLASS_VERSION;
    functions.value = static_cast<H5FD_class_value_t>(600);  // of the range left to applications
#endif
    functions.name = "smlp_memory";
    functions.maxaddr = static_cast<haddr_t>(INT64_MAX);
    functions.fc_degree = H5F_CLOSE_STRONG;
    functions.fapl_size = sizeof(AccessInfo);
    functions.open = open_file;
    functions.close = close_file;
    functions.cmp = compare_files;
    functions.query = query_features;
    functions.get_eoa = get_end;
    functions.set_eoa = set_end;
    functions.get_eof = get_end;
    functions.read = read_bytes;
    functions.write = write_bytes;
    std::fill(std::begin(functions.fl_map), std::end(functions.fl_map), H5FD_MEM_DEFAULT);
    return H5FDregister(&functions);
  }();
  if (driver < 0) fail_hdf5("registering the file driver");
  return driver;
}

}  // namespace

Hdf5Handle memory_access(SparseBytes& bytes, std::int64_t aligned_from, std::int64_t alignment) {
  Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "making file properties");
  const AccessInfo info{&bytes};
  check_hdf5(H5Pset_driver(access.id(), memory_driver(), &info), "choosing the file driver");
  check_hdf5(H5Pset_libver_bounds(access.id(), H5F_LIBVER_V18, H5F_LIBVER_V110), "choosing the file version");
  check_hdf5(H5Pset_fclose_degree(access.id(), H5F_CLOSE_STRONG), "choosing how files close");
  check_hdf5(
      H5Pset_alignment(access.id(), static_cast<hsize_t>(aligned_from), static_cast<hsize_t>(alignment)),
      "choosing the alignment");
  return access;
}

}  // namespace smlp
