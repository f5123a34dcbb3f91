#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "checkpoint/checkpoint.h"
#include "checkpoint/local.h"
#include "checkpoint/reader.h"
#include "core/digest.h"
#include "core/error.h"

namespace smlp {

namespace {

const LogicalTensor& matching_tensor(const Manifest& manifest, const std::string& where, const Piece& piece) {
  const auto& tensor = tensor_named(manifest, where, piece.name);
  expect(piece.local.contiguous(), "checkpoint: a piece to load into is strided");
  if (tensor.shape != piece.global_shape || tensor.dtype != piece.local.dtype) {
    throw Error(ExitCode::configuration,
                fmt::format("{}: tensor {} is {} {} there, {} {} in this run", where,
                            piece.name, name_of(tensor.dtype), tensor.shape.text(),
                            name_of(piece.local.dtype), piece.global_shape.text()));
  }
  return tensor;
}

void check_nothing_unread(const Manifest& manifest, const std::string& where, std::span<const Piece> pieces,
                          bool weights_only) {
  std::set<std::string_view> wanted;
  for (const auto& piece : pieces) wanted.insert(piece.name);
  for (const auto& tensor : manifest.tensors) {
    if (weights_only && !is_weight(tensor.name)) continue;
    if (!wanted.contains(tensor.name)) {
      throw Error(ExitCode::configuration,
                  fmt::format("{} holds tensor {}, which this run's model does not have", where, tensor.name));
    }
  }
}

template <class Value>
Value first_of(const std::map<std::string, std::vector<Value>>& lists, const std::string& name) {
  const auto found = lists.find(name);
  if (found == lists.end() || found->second.empty()) {
    throw Error(ExitCode::bad_data, fmt::format("the run state has no number '{}'", name));
  }
  return found->second.front();
}

}  // namespace

bool is_weight(const std::string& tensor) { return tensor.find('/') == std::string::npos; }

std::int64_t RunState::integer(const std::string& name) const { return first_of(integers, name); }
double RunState::number(const std::string& name) const { return first_of(numbers, name); }

std::string RunState::text(const std::string& name) const {
  const auto found = texts.find(name);
  return found == texts.end() ? "" : found->second;
}

RunState read_run_state(const std::filesystem::path& checkpoint) { return read_manifest(checkpoint).state; }

PieceFiller::PieceFiller(const Manifest& manifest, const std::string& where, Backend& backend,
                         std::span<const Piece> pieces, bool weights_only)
    : backend_(backend) {
  check_nothing_unread(manifest, where, pieces, weights_only);
  for (const auto& piece : pieces) {
    if (weights_only && !is_weight(piece.name)) continue;
    matching_tensor(manifest, where, piece);
    pieces_[piece.name].push_back(&piece);
  }
}

bool PieceFiller::wants(const std::string& tensor, std::int64_t first, std::int64_t count) const {
  const auto found = pieces_.find(tensor);
  if (found == pieces_.end()) return false;
  return std::ranges::any_of(found->second, [&](const Piece* piece) {
    return piece->local.size() > 0 && piece->offset < first + count && first < piece->offset + piece->local.size();
  });
}

void PieceFiller::fill(const std::string& tensor, std::int64_t first, std::span<const std::byte> bytes) {
  for (const auto* piece : pieces_.at(tensor)) {
    const TensorView flat(piece->local.data, {piece->local.size()}, piece->local.dtype);
    const auto element = size_of(flat.dtype);
    const auto from = std::max(first, piece->offset);
    const auto to = std::min(first + std::ssize(bytes) / element, piece->offset + flat.size());
    if (from < to) backend_.upload(bytes.data() + (from - first) * element, flat.row_range(from - piece->offset, to - from));
  }
}

std::vector<LogicalTensor> list_tensors(const std::filesystem::path& checkpoint) {
  return read_manifest(checkpoint).tensors;
}

std::vector<std::byte> read_tensor(const std::filesystem::path& checkpoint, const std::string& name) {
  CheckpointReader reader(checkpoint);
  return reader.read_all(reader.tensor(name));
}

std::map<std::string, std::string> digest_tensors(const std::filesystem::path& checkpoint) {
  CheckpointReader reader(checkpoint);
  std::map<std::string, std::string> digests;
  for (const auto& tensor : reader.manifest().tensors) {
    Digest digest;
    reader.read(tensor, 0, tensor.shape.size(),
                [&](std::int64_t, std::span<const std::byte> bytes) { digest.update(bytes); });
    digests[tensor.name] = digest.hex();
  }
  return digests;
}

std::string digest_all(const std::map<std::string, std::string>& digests) {
  std::string lines;
  for (const auto& [name, digest] : digests) lines += fmt::format("{} {}\n", digest, name);
  return digest_of(lines);
}

}  // namespace smlp
