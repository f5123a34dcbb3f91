#include "checkpoint/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "checkpoint/disk.h"
#include "checkpoint/refuse.h"
#include "core/digest.h"
#include "core/error.h"
#include "core/files.h"
#include "core/json_lines.h"
#include "core/run_directory.h"

namespace smlp {

using nlohmann::json;

namespace {

constexpr std::size_t digest_digits = 32;
const std::string seal_prefix = "{\"digest\":\"", seal_suffix = "\",\n";

// An object as text whose first line carries the digest of the rest.
std::string sealed(const json& object) {
  const std::string rest = object.dump().substr(1) + "\n";
  return seal_prefix + digest_of(rest) + seal_suffix + rest;
}

json opened(const std::string& text) {
  const auto head = seal_prefix.size() + digest_digits + seal_suffix.size();
  if (text.size() < head) refuse_data("it is too short to be a manifest");
  const std::string rest = text.substr(head);
  if (text.substr(0, head) != seal_prefix + digest_of(rest) + seal_suffix) {
    refuse_data("its digest is not the one in its first line: it was changed or cut off");
  }
  return json::parse("{" + rest);
}

json number_to_json(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

double number_from_json(const json& value) {
  if (value.is_number()) return value.get<double>();
  const auto text = value.get<std::string>();
  if (text == "nan") return std::nan("");
  return text == "inf" ? HUGE_VAL : -HUGE_VAL;
}

json to_json(const RunState& state) {
  json numbers = json::object();
  for (const auto& [name, values] : state.numbers) {
    auto& list = numbers[name] = json::array();
    for (const double value : values) list.push_back(number_to_json(value));
  }
  return {{"numbers", numbers}, {"integers", state.integers}, {"texts", state.texts}};
}

std::int64_t whole(const json& object, const char* key) { return whole_number(object.at(key)); }

int count(const json& object, const char* key) {
  const std::int64_t number = whole(object, key);
  if (number != static_cast<int>(number)) refuse_data(fmt::format("{} is {}", key, number));
  return static_cast<int>(number);
}

RunState run_state_from(const json& object) {
  RunState state;
  for (const auto& [name, values] : object.at("numbers").items()) {
    auto& list = state.numbers[name];
    for (const auto& value : values) list.push_back(number_from_json(value));
  }
  for (const auto& [name, values] : object.at("integers").items()) state.integers[name] = whole_numbers(values);
  object.at("texts").get_to(state.texts);
  return state;
}

json to_json(const std::vector<LogicalTensor>& tensors) {
  json list = json::array();
  for (const auto& tensor : tensors) {
    list.push_back(
        {{"name", tensor.name}, {"dtype", name_of(tensor.dtype)}, {"shape", dims_of(tensor.shape)}});
  }
  return list;
}

std::vector<LogicalTensor> tensors_from(const json& list) {
  std::vector<LogicalTensor> tensors;
  for (const auto& item : list) {
    tensors.push_back({item.at("name"), shape_of(whole_numbers(item.at("shape"))), dtype_named(item.at("dtype"))});
  }
  return tensors;
}

json to_json(const StoredShard& shard) {
  json pieces = json::array();
  for (const auto& piece : shard.pieces) {
    pieces.push_back({{"tensor", piece.tensor},
                      {"offset", piece.offset},
                      {"count", piece.count},
                      {"position", piece.position},
                      {"digest", piece.digest}});
  }
  return {
      {"file", shard.file}, {"size", shard.size}, {"frame_digest", shard.frame_digest}, {"pieces", pieces}};
}

StoredShard shard_from(const json& object) {
  StoredShard shard{object.at("file"), whole(object, "size"), object.at("frame_digest"), {}};
  for (const auto& item : object.at("pieces")) {
    shard.pieces.push_back(
        {item.at("tensor"), whole(item, "offset"), whole(item, "count"), whole(item, "position"), item.at("digest")});
  }
  return shard;
}

void check_kind(const json& object, const char* kind) {
  if (object.at("format") != kind) refuse_data(fmt::format("it is not a {}", kind));
  const int version = count(object, "version");
  const auto sentence = fmt::format("it is of format version {}; this program reads versions up to {}", version,
                                    checkpoint_format_version);
  if (version > checkpoint_format_version) throw NewerFormat(version, sentence);
  if (version < 1) refuse_data(sentence);
}

template <class Parse>
auto parsed(const char* what, const Parse& parse) {
  try {
    return parse();
  } catch (const json::exception& error) {
    refuse_data(fmt::format("it is no {}: {}", what, json_fault(error)));
  }
}

}  // namespace

Shape shape_of(const std::vector<std::int64_t>& dims) {
  if (dims.size() <= 4) return Shape(dims);
  refuse_data(fmt::format("it names a tensor of {} dimensions; four are the most", dims.size()));
}

std::vector<std::int64_t> dims_of(const Shape& shape) {
  return {shape.dims().begin(), shape.dims().end()};
}

const LogicalTensor* Manifest::find(const std::string& name) const {
  const auto place =
      std::lower_bound(tensors.begin(), tensors.end(), name,
                       [](const LogicalTensor& tensor, const std::string& key) { return tensor.name < key; });
  return place != tensors.end() && place->name == name ? &*place : nullptr;
}

std::int64_t Manifest::bytes() const {
  std::int64_t sum = whole_size;
  for (const auto& shard : shards) sum += shard.size;
  return sum;
}

std::string to_text(const Manifest& manifest) {
  json shards = json::array();
  for (const auto& shard : manifest.shards) shards.push_back(to_json(shard));
  return sealed(
      {{"format", "smlp checkpoint"},
       {"version", checkpoint_format_version},
       {"step", manifest.step},
       {"attempt", manifest.attempt},
       {"ranks", manifest.ranks},
       {"run_state", to_json(manifest.state)},
       {"tensors", to_json(manifest.tensors)},
       {"shards", shards},
       {"whole", {{"file", whole_name}, {"size", manifest.whole_size}, {"digest", manifest.whole_digest}}}});
}

std::string to_text(const Sidecar& sidecar) {
  return sealed({{"format", "smlp shard"},
                 {"version", checkpoint_format_version},
                 {"step", sidecar.step},
                 {"attempt", sidecar.attempt},
                 {"rank", sidecar.rank},
                 {"ranks", sidecar.ranks},
                 {"run_state", to_json(sidecar.state)},
                 {"tensors", to_json(sidecar.tensors)},
                 {"shard", to_json(sidecar.shard)}});
}

Manifest parse_manifest(const std::string& text) {
  auto manifest = parsed("manifest", [&] {
    const json object = opened(text);
    check_kind(object, "smlp checkpoint");
    Manifest m{whole(object, "step"),
               count(object, "attempt"),
               count(object, "ranks"),
               run_state_from(object.at("run_state")),
               tensors_from(object.at("tensors")),
               {},
               whole(object.at("whole"), "size"),
               object.at("whole").at("digest")};
    for (const auto& shard : object.at("shards")) m.shards.push_back(shard_from(shard));
    return m;
  });
  check_places(manifest);
  const auto fault = coverage_fault(manifest.tensors, manifest.shards);
  if (!fault.empty()) refuse_data(fault);
  return manifest;
}

Sidecar parse_sidecar(const std::string& text) {
  return parsed("sidecar of a shard", [&] {
    const json object = opened(text);
    check_kind(object, "smlp shard");
    return Sidecar{whole(object, "step"),
                   count(object, "attempt"),
                   count(object, "rank"),
                   count(object, "ranks"),
                   run_state_from(object.at("run_state")),
                   tensors_from(object.at("tensors")),
                   shard_from(object.at("shard"))};
  });
}

Manifest read_manifest_of_list(const std::filesystem::path& checkpoint) {
  const auto path = checkpoint / manifest_name;
  std::error_code shut;
  const auto found = std::filesystem::status(path, shut);
  if (shut && !is_damage(shut)) fail_io("looking at", path, shut.value());
  if (!std::filesystem::is_regular_file(found)) {
    const bool missing = !shut || found.type() == std::filesystem::file_type::not_found;
    refuse_data(missing ? fmt::format("{} is missing", manifest_name)
                        : fmt::format("{} can't be read: {}", manifest_name, shut.message()));
  }
  const std::string text = read_text(path);
  const auto named = [](const Error& error) { return fmt::format("{} does not hold: {}", manifest_name, error.what()); };
  try {
    return parse_manifest(text);
  } catch (const NewerFormat& newer) {
    throw NewerFormat(newer.version(), named(newer));
  } catch (const Error& error) {
    refuse_data(named(error));
  }
}

Manifest read_manifest(const std::filesystem::path& checkpoint) {
  const auto named = [&](const Error& error) { return fmt::format("{}: {}", checkpoint.string(), error.what()); };
  try {
    return read_manifest_of_list(checkpoint);
  } catch (const NewerFormat& newer) {
    throw NewerFormat(newer.version(), named(newer));
  } catch (const Error& error) {
    throw Error(error.code(), named(error));
  }
}

}  // namespace smlp
