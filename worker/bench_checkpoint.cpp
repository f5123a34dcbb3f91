// `bench checkpoint`: saving, verifying and loading a model's whole state, beside a plain write with fsync of as
// many bytes and a copy in memory, in the same run.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <span>
#include <vector>

#include "checkpoint/disk.h"
#include "core/error.h"
#include "core/features.h"
#include "core/leftovers.h"
#include "worker/bench.h"
#include "worker/bench_engine.h"
#include "worker/load_together.h"
#include "worker/stopwatch.h"

namespace smlp {

namespace {

constexpr int saves = 3;  // the first also touches fresh memory and disk blocks

double copy_seconds(std::vector<char>& from, std::vector<char>& to) {
  std::memcpy(to.data(), from.data(), from.size());  // touches both
  const Stopwatch watch;
  std::memcpy(to.data(), from.data(), from.size());
  return watch.seconds();
}

double raw_write_seconds(const std::filesystem::path& path, const std::vector<char>& bytes) {
  const Stopwatch watch;
  auto file = DiskFile::create(path);
  file.write_at(std::as_bytes(std::span(bytes)), 0);
  file.sync();
  return watch.seconds();
}

}  // namespace

void bench_checkpoint(const BenchOptions& options, nlohmann::json& result) {
  need_checkpoints("`smlp bench checkpoint` writes");
  auto backend = make_backend(options.job);
  auto grid = ProcessGrid::cut(make_solo(*backend), 1);
  BenchEngine bench(options.job, std::move(backend), std::move(grid));
  auto& engine = bench.engine();
  const auto pieces = engine.pieces(true);
  std::int64_t total = 0;
  for (const auto& piece : pieces) total += piece.local.bytes();

  // On the disk that is measured. A signal ends this process, and whoever started it sweeps the folder (commands/bench.cpp).
  const OwnFolder folder(std::filesystem::current_path(), bench_folder_prefix, "the benchmark's checkpoints");
  std::vector<double> stall, write, publish, raw;
  std::vector<char> from(static_cast<std::size_t>(total), 1), to(static_cast<std::size_t>(total), 2);
  const double copied = copy_seconds(from, to);
  {
    CheckpointWriter writer({.root = folder.path(), .keep_last = 1});
    for (int i = 1; i <= saves; ++i) {
      RunState state;
      state.integers = {{"step", {i}}};
      writer.begin(engine.backend(), pieces, state);
      stall.push_back(writer.stall_seconds());
      writer.wait();
      write.push_back(writer.write_seconds());
      const Stopwatch watch;
      writer.publish();
      writer.wait();
      publish.push_back(watch.seconds());
      if (writer.state() != CheckpointWriter::State::published) throw Error(ExitCode::io_failed, writer.failure());
      writer.release();
      raw.push_back(raw_write_seconds(folder.path() / "raw", from));
    }
  }
  Stopwatch watch;
  const auto path = find_checkpoint(folder.path());
  const double verify = watch.lap();
  auto& world = *engine.grid().world;
  load_together(shared_save(path, world.size()), world, engine.backend(), pieces);
  const double load = watch.lap();
  const auto rate = [&](double seconds) { return static_cast<double>(total) / seconds; };
  const auto least = [](const std::vector<double>& seconds) { return *std::min_element(seconds.begin(), seconds.end()); };
  result = {{"bytes", total},
            {"stall_seconds", {{"first", stall.front()}, {"best", least(stall)}}},
            {"memory_copy_seconds", copied},
            {"write_bytes_per_second", rate(least(write))},
            {"raw_write_bytes_per_second", rate(least(raw))},
            {"write_share", least(raw) / least(write)},
            {"publish_seconds", least(publish)},
            {"verify_bytes_per_second", rate(verify)},
            {"load_bytes_per_second", rate(load)}};
}

}  // namespace smlp
