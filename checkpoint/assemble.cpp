// Shards put together: do they make one checkpoint?
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "checkpoint/manifest.h"
#include "checkpoint/refuse.h"
#include "core/error.h"

namespace smlp {

Manifest manifest_of(std::vector<Sidecar> sidecars) {
  Manifest manifest;
  if (sidecars.empty()) return manifest;
  manifest.step = sidecars.front().step;
  manifest.attempt = sidecars.front().attempt;
  manifest.ranks = sidecars.front().ranks;
  manifest.state = std::move(sidecars.front().state);
  std::map<std::string, LogicalTensor> tensors;
  for (auto& sidecar : sidecars) {
    for (auto& tensor : sidecar.tensors) {
      const auto [place, fresh] = tensors.try_emplace(tensor.name, tensor);
      if (!fresh && (place->second.shape != tensor.shape || place->second.dtype != tensor.dtype)) {
        throw Error(ExitCode::fault,
                    fmt::format("rank {} says that tensor {} is {} {}, another rank {} {}", sidecar.rank, tensor.name,
                                name_of(tensor.dtype), tensor.shape.text(), name_of(place->second.dtype),
                                place->second.shape.text()));
      }
    }
    manifest.shards.push_back(std::move(sidecar.shard));
  }
  for (auto& [name, tensor] : tensors) manifest.tensors.push_back(std::move(tensor));
  return manifest;
}

void check_places(const Manifest& manifest) {
  for (const auto& shard : manifest.shards) {
    std::int64_t end = 0;
    for (const auto& piece : shard.pieces) {
      const auto* tensor = manifest.find(piece.tensor);
      if (tensor == nullptr)
        refuse_data(fmt::format("{} holds a piece of {}, which is not listed", shard.file, piece.tensor));
      if (piece.position < end || piece.count < 0) {
        refuse_data(fmt::format("pieces overlap in {} at byte {}", shard.file, piece.position));
      }
      end = piece.position + piece.count * size_of(tensor->dtype);
    }
    if (end > shard.size) refuse_data(fmt::format("the pieces of {} go beyond its end", shard.file));
  }
}

const LogicalTensor& tensor_named(const Manifest& manifest, const std::string& where, const std::string& name) {
  if (const auto* found = manifest.find(name)) return *found;
  std::vector<std::string> names;
  for (const auto& tensor : manifest.tensors) names.push_back(tensor.name);
  const auto nearest = nearest_name(name, names);
  throw Error(ExitCode::configuration,
              fmt::format("{} holds no tensor {}{}", where, name,
                          nearest.empty() ? "" : fmt::format("; the nearest name is {}", nearest)));
}

std::string coverage_fault(const std::vector<LogicalTensor>& tensors,
                           const std::vector<StoredShard>& shards) {
  struct Range {
    std::int64_t offset, count;
    const std::string* file;
  };
  std::map<std::string, std::vector<Range>> ranges;
  for (const auto& shard : shards) {
    for (const auto& piece : shard.pieces)
      ranges[piece.tensor].push_back({piece.offset, piece.count, &shard.file});
  }
  for (const auto& tensor : tensors) {
    auto& list = ranges[tensor.name];
    std::sort(list.begin(), list.end(), [](const Range& a, const Range& b) { return a.offset < b.offset; });
    std::int64_t end = 0;
    for (const auto& range : list) {
      if (range.offset < end) {
        return fmt::format("tensor {} is stored twice from element {} on, the second time in {}", tensor.name,
                           range.offset, *range.file);
      }
      if (range.offset > end) break;
      end += range.count;
    }
    if (end > tensor.shape.size()) {
      return fmt::format("tensor {} {} is stored beyond its last element", tensor.name, tensor.shape.text());
    }
    if (end != tensor.shape.size()) {
      return fmt::format("no shard holds element {} of tensor {} {}", end, tensor.name, tensor.shape.text());
    }
  }
  return "";
}

}  // namespace smlp
