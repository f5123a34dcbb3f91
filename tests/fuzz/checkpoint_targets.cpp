#include "checkpoint/manifest.h"
#include "checkpoint/reader.h"
#include "core/digest.h"
#include "core/run_directory.h"
#include "tests/fuzz/inputs.h"
#include "tests/fuzz/targets.h"

namespace smlp::fuzz {

namespace {

// What follows the first line of a manifest, under a digest that is right: else nothing behind it would be reached.
std::string sealed(std::string_view rest) {
  return "{\"digest\":\"" + digest_of(std::string(rest)) + "\",\n" + std::string(rest);
}
std::string unsealed(const std::string& text) { return text.substr(text.find('\n') + 1); }

void manifest(std::string_view bytes) {
  const Manifest read = parse_manifest(sealed(bytes));
  const Manifest again = parse_manifest(to_text(read));
  must(again.shards == read.shards && again.step == read.step, "a manifest that is written and read again is the same");
  must(difference_of(read.state, again.state).empty(), "and so is its run state");
}

void sidecar(std::string_view bytes) {
  const Sidecar read = parse_sidecar(sealed(bytes));
  must(parse_sidecar(to_text(read)).shard == read.shard, "a sidecar that is written and read again is the same");
  const Manifest whole = manifest_of({read});
  coverage_fault(whole.tensors, whole.shards);
}

// Manifest, shard and whole.h5.
void checkpoint(std::string_view bytes) {
  const auto parts = parts_of(bytes);
  const auto path = folder() / "step-00000001";
  put(path / manifest_name, sealed(parts[0]));
  put(path / "rank-0000.h5", part(parts, 1));
  put(path / whole_name, part(parts, 2));
  CheckpointReader reader(path);
  for (const auto& shard : reader.manifest().shards) shard_fault(path / shard.file, shard, reader.manifest());
  for (const auto& tensor : reader.manifest().tensors) reader.read_all(tensor);
}

// One tensor of four bytes, in the middle of a file of twelve.
const std::string shard_bytes = "head" "\1\2\3\4" "tail", whole_bytes = "whole";

Sidecar small_sidecar() {
  Sidecar small{.step = 1, .attempt = 1, .rank = 0, .ranks = 1, .state = {}, .tensors = {}, .shard = {}};
  small.tensors = {{"a", {1}, DType::f32}};
  small.state.numbers["loss"] = {2.5};
  small.state.integers["step"] = {1};
  small.state.texts["job"] = "name";
  const std::string values = shard_bytes.substr(4, 4), frame = "headtail";
  small.shard = {.file = "rank-0000.h5", .size = 12, .frame_digest = digest_of(frame), .pieces = {}};
  small.shard.pieces = {{.tensor = "a", .offset = 0, .count = 1, .position = 4, .digest = digest_of(values)}};
  return small;
}

std::string small_manifest() {
  Manifest whole = manifest_of({small_sidecar()});
  whole.whole_size = static_cast<std::int64_t>(whole_bytes.size());
  whole.whole_digest = digest_of(whole_bytes);
  return unsealed(to_text(whole));
}

}  // namespace

std::vector<Target> checkpoint_targets() {
  return {{"manifest", manifest, {small_manifest()}},
          {"sidecar", sidecar, {unsealed(to_text(small_sidecar()))}},
          {"checkpoint", checkpoint, {joined({small_manifest(), shard_bytes, whole_bytes})}}};
}

}  // namespace smlp::fuzz
