#include "checkpoint/hdf5_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <map>

#include "checkpoint/boxes.h"
#include "checkpoint/hdf5_memory.h"
#include "core/error.h"

namespace smlp {

static_assert(std::endian::native == std::endian::little,
              "checkpoints hold the bytes of little-endian machines");

namespace {

// Large datasets start at a page; small ones are packed.
constexpr std::int64_t aligned_from = 64 << 10, alignment = 4096;

std::string dataset_name(const std::string& tensor, std::int64_t offset) {
  return fmt::format("{}@{}", tensor, offset);
}

Hdf5Handle half_type() {
  Hdf5Handle type(H5Tcopy(H5T_IEEE_F32LE), H5Tclose, "making the type f16");
  check_hdf5(H5Tset_fields(type.id(), 15, 10, 5, 0, 10), "making the type f16");
  check_hdf5(H5Tset_ebias(type.id(), 15), "making the type f16");
  check_hdf5(H5Tset_size(type.id(), 2), "making the type f16");
  return type;
}

// bf16 has no type in HDF5: its 16 bits are stored as an unsigned number, and an attribute says so.
Hdf5Handle file_type(DType type) {
  const auto copy = [](hid_t id) { return Hdf5Handle(H5Tcopy(id), H5Tclose, "copying a type"); };
  switch (type) {
    case DType::f64:
      return copy(H5T_IEEE_F64LE);
    case DType::f32:
      return copy(H5T_IEEE_F32LE);
    case DType::bf16:
      return copy(H5T_STD_U16LE);
    case DType::f16:
      return half_type();
    case DType::i32:
      return copy(H5T_STD_I32LE);
    case DType::i64:
      return copy(H5T_STD_I64LE);
    case DType::u8:
      return copy(H5T_STD_U8LE);
  }
  throw Error(ExitCode::fault, "a tensor has a type that checkpoints don't know");
}

// What a reader of whole.h5 sees where a shard is missing: NaN, or the most unlikely integer.
void set_fill(hid_t properties, hid_t type, DType dtype) {
  const auto set = [&](auto value) {
    check_hdf5(H5Pset_fill_value(properties, type, &value), "setting the fill value");
  };
  switch (dtype) {
    case DType::f64:
      return set(std::numeric_limits<double>::quiet_NaN());
    case DType::f32:
      return set(std::numeric_limits<float>::quiet_NaN());
    case DType::bf16:
      return set(std::uint16_t{0x7fc0});
    case DType::f16:
      return set(std::uint16_t{0x7e00});
    case DType::i32:
      return set(std::numeric_limits<std::int32_t>::min());
    case DType::i64:
      return set(std::numeric_limits<std::int64_t>::min());
    case DType::u8:
      return set(std::uint8_t{255});
  }
}

Hdf5Handle space_of(const std::vector<std::int64_t>& dims) {
  const std::vector<hsize_t> extent(dims.begin(), dims.end());
  if (extent.empty()) return {H5Screate(H5S_SCALAR), H5Sclose, "making a dataspace"};
  return {H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr), H5Sclose,
          "making a dataspace"};
}

void put_attribute(hid_t where, const std::string& name, hid_t file_type_id, hid_t space, hid_t memory_type,
                   const void* values) {
  Hdf5Handle attribute(H5Acreate2(where, name.c_str(), file_type_id, space, H5P_DEFAULT, H5P_DEFAULT),
                       H5Aclose, "making the attribute " + name);
  if (values == nullptr) return;  // an empty list
  check_hdf5(H5Awrite(attribute.id(), memory_type, values), "writing the attribute " + name);
}

template <class T>
void put_list(hid_t where, const std::string& name, const std::vector<T>& values) {
  const hid_t file_id = std::is_same_v<T, double> ? H5T_IEEE_F64LE : H5T_STD_I64LE;
  const hid_t memory_id = std::is_same_v<T, double> ? H5T_NATIVE_DOUBLE : H5T_NATIVE_INT64;
  const auto count = static_cast<std::int64_t>(values.size());
  const auto space = count == 0   ? Hdf5Handle(H5Screate(H5S_NULL), H5Sclose, "making a dataspace")
                     : count == 1 ? space_of({})
                                  : space_of({count});
  put_attribute(where, name, file_id, space.id(), memory_id, values.empty() ? nullptr : values.data());
}

void put_number(hid_t where, const std::string& name, std::int64_t value) {
  put_list(where, name, std::vector<std::int64_t>{value});
}

void put_text(hid_t where, const std::string& name, const std::string& text) {
  Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose, "copying a type");
  check_hdf5(H5Tset_size(type.id(), std::max<std::size_t>(text.size(), 1)), "setting a text's length");
  check_hdf5(H5Tset_strpad(type.id(), H5T_STR_NULLPAD), "setting a text's padding");
  check_hdf5(H5Tset_cset(type.id(), H5T_CSET_UTF8), "setting a text's encoding");
  put_attribute(where, name, type.id(), space_of({}).id(), type.id(), text.c_str());
}

// HDF5 would note the time of day: the same save at another second would be other bytes.
Hdf5Handle undated(hid_t kind) {
  Hdf5Handle properties(H5Pcreate(kind), H5Pclose, "making properties");
  check_hdf5(H5Pset_obj_track_times(properties.id(), false), "switching times off");
  return properties;
}

Hdf5Handle create_file(SparseBytes& bytes, const std::string& name) {
  const auto access = memory_access(bytes, aligned_from, alignment);
  const auto creation = undated(H5P_FILE_CREATE);
  return {H5Fcreate(name.c_str(), H5F_ACC_TRUNC, creation.id(), access.id()), H5Fclose, "creating " + name};
}

Hdf5Handle link_properties() {
  Hdf5Handle properties(H5Pcreate(H5P_LINK_CREATE), H5Pclose, "making link properties");
  check_hdf5(H5Pset_char_encoding(properties.id(), H5T_CSET_UTF8), "asking for UTF-8 names");
  return properties;
}

// Those that `name` lies in, which HDF5 would make on the way, but with their times.
void make_groups_of(hid_t file, hid_t links, const std::string& name) {
  const auto properties = undated(H5P_GROUP_CREATE);
  for (auto end = name.find('/'); end != std::string::npos; end = name.find('/', end + 1)) {
    const auto group = name.substr(0, end);
    const auto there = H5Lexists(file, group.c_str(), H5P_DEFAULT);
    check_hdf5(there, "looking for the group " + group);
    if (there > 0) continue;
    Hdf5Handle(H5Gcreate2(file, group.c_str(), links, properties.id(), H5P_DEFAULT), H5Gclose, "creating the group " + group);
  }
}

void select_box(hid_t space, const Box& box) {
  const std::vector<hsize_t> start(box.start.begin(), box.start.end()),
      extent(box.extent.begin(), box.extent.end());
  check_hdf5(H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr),
             "selecting part of a dataset");
}

struct Source {
  const StoredShard* shard;
  const StoredPiece* piece;
};

void put_whole_tensor(hid_t file, hid_t links, const LogicalTensor& tensor,
                      const std::vector<Source>& sources) {
  auto dims = dims_of(tensor.shape);
  if (dims.empty()) dims = {1};  // HDF5 has no virtual scalars
  const auto type = file_type(tensor.dtype);
  const auto space = space_of(dims);
  const auto properties = undated(H5P_DATASET_CREATE);
  set_fill(properties.id(), type.id(), tensor.dtype);
  for (const auto& [shard, piece] : sources) {
    const auto source = space_of({piece->count});
    std::int64_t first = 0;
    for (const auto& box : boxes_of(dims, piece->offset, piece->count)) {
      select_box(space.id(), box);
      select_box(source.id(), {{first}, {box.elements()}});
      check_hdf5(H5Pset_virtual(properties.id(), space.id(), shard->file.c_str(),
                                dataset_name(tensor.name, piece->offset).c_str(), source.id()),
                 "mapping " + tensor.name);
      first += box.elements();
    }
  }
  check_hdf5(H5Sselect_all(space.id()), "selecting all of a dataset");
  make_groups_of(file, links, tensor.name);
  const Hdf5Handle dataset(
      H5Dcreate2(file, tensor.name.c_str(), type.id(), space.id(), links, properties.id(), H5P_DEFAULT),
      H5Dclose, "creating the dataset " + tensor.name);
  if (tensor.dtype == DType::bf16) put_text(dataset.id(), "dtype", name_of(tensor.dtype));
}

}  // namespace

ShardImage make_shard_image(const Sidecar& sidecar, const std::vector<PieceOutline>& pieces) {
  const Hdf5Session session;
  ShardImage image;
  auto file = create_file(image.frame, sidecar.shard.file);
  const auto links = link_properties();
  const auto properties = undated(H5P_DATASET_CREATE);
  check_hdf5(H5Pset_alloc_time(properties.id(), H5D_ALLOC_TIME_EARLY), "asking for space");
  check_hdf5(H5Pset_fill_time(properties.id(), H5D_FILL_TIME_NEVER), "switching filling off");
  put_text(file.id(), "format", "smlp shard");
  put_number(file.id(), "version", checkpoint_format_version);
  put_number(file.id(), "step", sidecar.step);
  put_number(file.id(), "rank", sidecar.rank);
  put_number(file.id(), "ranks", sidecar.ranks);
  for (const auto& piece : pieces) {
    const auto name = dataset_name(piece.tensor->name, piece.offset);
    const auto type = file_type(piece.tensor->dtype);
    make_groups_of(file.id(), links.id(), name);
    const Hdf5Handle dataset(H5Dcreate2(file.id(), name.c_str(), type.id(), space_of({piece.count}).id(),
                                        links.id(), properties.id(), H5P_DEFAULT),
                             H5Dclose, "creating the dataset " + name);
    const haddr_t position = H5Dget_offset(dataset.id());
    if (position == HADDR_UNDEF) fail_hdf5("asking where the dataset " + name + " lies");
    image.positions.push_back(static_cast<std::int64_t>(position));
    put_number(dataset.id(), "offset", piece.offset);
    put_list(dataset.id(), "shape", dims_of(piece.tensor->shape));
    if (piece.tensor->dtype == DType::bf16) put_text(dataset.id(), "dtype", name_of(piece.tensor->dtype));
  }
  file.close("closing " + sidecar.shard.file);
  image.size = image.frame.end();
  return image;
}

std::string make_whole_image(const Manifest& manifest) {
  const Hdf5Session session;
  std::map<std::string, std::vector<Source>> sources;
  for (const auto& shard : manifest.shards) {
    for (const auto& piece : shard.pieces) sources[piece.tensor].push_back({&shard, &piece});
  }
  SparseBytes bytes;
  auto file = create_file(bytes, whole_name);
  const auto links = link_properties();
  put_text(file.id(), "format", "smlp checkpoint");
  put_number(file.id(), "version", checkpoint_format_version);
  put_number(file.id(), "step", manifest.step);
  for (const auto& [name, values] : manifest.state.numbers) put_list(file.id(), "numbers." + name, values);
  for (const auto& [name, values] : manifest.state.integers) put_list(file.id(), "integers." + name, values);
  for (const auto& [name, text] : manifest.state.texts) put_text(file.id(), "texts." + name, text);
  for (const auto& tensor : manifest.tensors)
    put_whole_tensor(file.id(), links.id(), tensor, sources[tensor.name]);
  file.close("closing whole.h5");
  std::string text(static_cast<std::size_t>(bytes.end()), '\0');
  bytes.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace smlp
