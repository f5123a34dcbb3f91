#include "tests/checkpoint/sample.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <limits>
#include <numeric>

#include "checkpoint/local.h"
#include "checkpoint/reader.h"
#include "core/random.h"
#include "tests/comm/faraway_backend.h"

namespace smlp::test {

namespace fs = std::filesystem;

const std::vector<SampleTensor>& sample_tensors() {
  static const std::vector<SampleTensor> tensors = [] {
    std::vector<SampleTensor> list = {
        {"embedding.weight", {37, 5}, DType::f32, Spread::replicated},
        {"blocks.0.norm.weight", {7}, DType::f64, Spread::replicated},
        {"blocks.0.spatial.weight", {2, 11, 11}, DType::bf16, Spread::replicated},
        {"blocks.1.experts.in.weight", {8, 3, 5}, DType::f32, Spread::experts},
        {"blocks.1.experts.out.bias", {8, 3}, DType::bf16, Spread::experts},
        {"scale", {}, DType::f64, Spread::replicated},
        {"nothing", {0, 4}, DType::f32, Spread::replicated},
        {"table", {13}, DType::i64, Spread::flat},
        {"words", {3, 3}, DType::u8, Spread::flat},
        {"halves", {6, 2}, DType::f16, Spread::flat},
        {"counts", {2, 2, 2, 2}, DType::i32, Spread::flat}};
    const auto weights = list;
    for (const auto& t : weights) {
      if (t.dtype == DType::f32 || t.dtype == DType::bf16) {
        list.push_back(
            {"adam.m/" + t.name, t.shape, DType::f32, t.spread == Spread::experts ? t.spread : Spread::flat});
        list.push_back({"adam.v/" + t.name, t.shape, DType::f32, Spread::flat});
      }
    }
    return list;
  }();
  return tensors;
}

const std::vector<SampleTensor>& few_tensors() {
  static const std::vector<SampleTensor> tensors = {sample_tensors()[0], sample_tensors()[3],
                                                    sample_tensors()[4], sample_tensors()[7]};
  return tensors;
}

std::vector<std::byte> sample_bytes(const SampleTensor& tensor, std::int64_t step) {
  const auto size = static_cast<std::size_t>(tensor.shape.size() * size_of(tensor.dtype));
  std::vector<std::byte> bytes(size);
  const RandomStream random(static_cast<std::uint64_t>(step), tensor.name);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(random.bits(i) & 0xff);
  return bytes;
}

RunState sample_state(std::int64_t step) {
  RunState state;
  state.integers = {{"step", {step}}, {"tokens", {step * 1000}}, {"window", {1, 2, step}}, {"none", {}}};
  state.numbers = {{"loss_scale", {65536.0}},
                   {"best", {std::numeric_limits<double>::infinity(), -0.0, 0.1, 1e-310}},
                   {"unknown", {std::numeric_limits<double>::quiet_NaN()}}};
  state.texts = {{"fingerprint", "0123456789abcdef"}, {"note", "λ and \"quotes\"\n"}, {"empty", ""}};
  return state;
}

namespace {

struct Share {
  std::int64_t offset, count;
  bool mine;
};

Share share_of(const SampleTensor& tensor, std::size_t index, int rank, int ranks) {
  const auto size = tensor.shape.size();
  switch (tensor.spread) {
    case Spread::replicated:
      return {0, size, static_cast<int>(index) % ranks == rank};
    case Spread::experts: {
      const auto ways = std::gcd(tensor.shape[0], std::int64_t{ranks});
      const auto part = size / ways;
      return {rank % ways * part, part, rank / ways == 0};
    }
    case Spread::flat:
      break;
  }
  const auto part = (size + ranks - 1) / ranks, first = std::min(size, rank * part);
  return {first, std::min(size, first + part) - first, true};
}

}  // namespace

SampleRank::SampleRank(int rank, int ranks, const std::vector<SampleTensor>& tensors)
    : backend_(std::make_unique<FarawayBackend>()), tensors_(tensors) {
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const auto& tensor = tensors_[i];
    const auto [offset, count, mine] = share_of(tensor, i, rank, ranks);
    void* memory = backend_->allocate(std::max<std::int64_t>(count * size_of(tensor.dtype), 1));
    pieces_.push_back({tensor.name, TensorView(memory, {count}, tensor.dtype), tensor.shape, offset, mine});
  }
}

SampleRank::~SampleRank() {
  for (const auto& piece : pieces_) backend_->release(piece.local.data);
}

void SampleRank::fill(std::int64_t step) {
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const auto bytes = sample_bytes(tensors_[i], step);
    backend_->upload(bytes.data() + pieces_[i].offset * size_of(tensors_[i].dtype), pieces_[i].local);
  }
}

void SampleRank::wipe() {
  for (const auto& piece : pieces_) {
    const std::vector<std::byte> bytes(static_cast<std::size_t>(piece.local.bytes()), std::byte{0xEE});
    backend_->upload(bytes.data(), piece.local);
  }
}

std::vector<std::string> SampleRank::wrong(std::int64_t step) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const auto& piece = pieces_[i];
    const auto all = sample_bytes(tensors_[i], step);
    std::vector<std::byte> got(static_cast<std::size_t>(piece.local.bytes()));
    backend_->download(piece.local, got.data());
    if (!std::equal(got.begin(), got.end(), all.begin() + piece.offset * size_of(piece.local.dtype))) {
      names.push_back(piece.name);
    }
  }
  return names;
}

// In memory where possible: a save flushes a dozen files.
SaveResult save(const WriterOptions& options, std::int64_t step, const std::vector<SampleTensor>& tensors) {
  std::vector<std::unique_ptr<CheckpointWriter>> writers;
  for (int rank = 0; rank < options.ranks; ++rank) {
    auto mine = options;
    mine.rank = rank;
    writers.push_back(std::make_unique<CheckpointWriter>(mine));
    SampleRank memory(rank, options.ranks, tensors);
    memory.fill(step);
    writers.back()->begin(memory.backend(), memory.pieces(), sample_state(step));
    memory.wipe();  // the copy is made: training goes on
    writers.back()->wait();
  }
  SaveResult result;
  bool all_written = true;
  for (auto& writer : writers) {
    all_written = all_written && writer->state() == CheckpointWriter::State::written;
    if (writer->state() == CheckpointWriter::State::failed) result.failure = writer->failure();
  }
  if (all_written) {
    writers[0]->publish();
    writers[0]->wait();
    result.published = writers[0]->state() == CheckpointWriter::State::published;
    result.failure = writers[0]->failure() + writers[0]->note();
  }
  for (auto& writer : writers) writer->release();
  return result;
}

void load_alone(const fs::path& checkpoint, SampleRank& memory, bool weights_only) {
  CheckpointReader reader(checkpoint);
  PieceFiller filler(reader.manifest(), checkpoint.string(), memory.backend(), memory.pieces(), weights_only);
  for (const auto& tensor : reader.manifest().tensors) {
    if (!filler.wants(tensor.name, 0, tensor.shape.size())) continue;
    reader.read(tensor, 0, tensor.shape.size(),
                [&](std::int64_t first, std::span<const std::byte> bytes) { filler.fill(tensor.name, first, bytes); });
  }
}

std::string load_fault(const fs::path& checkpoint, int ranks, std::int64_t step,
                       const std::vector<SampleTensor>& tensors) {
  std::string fault;
  for (int rank = 0; rank < ranks; ++rank) {
    SampleRank memory(rank, ranks, tensors);
    memory.wipe();
    load_alone(checkpoint, memory);
    const auto wrong = memory.wrong(step);
    if (!wrong.empty()) fault += fmt::format("rank {}: {} ", rank, fmt::join(wrong, " "));
  }
  const auto differences = read_run_state(checkpoint);
  auto expected = sample_state(step), got = differences;
  expected.numbers.erase("unknown");  // NaN equals nothing
  got.numbers.erase("unknown");
  if (got != expected) fault += "run state ";
  return fault;
}

WriterOptions options_for(const fs::path& root, int ranks, int attempt) {
  return {.root = root,
          .rank = 0,
          .ranks = ranks,
          .attempt = attempt,
          .keep_last = 3,
          .keep_every = 0,
          .patience_seconds = 0.2};
}

fs::path step_path(const fs::path& root, std::int64_t step) {
  return root / fmt::format("step-{:08d}", step);
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  if (!fs::exists(folder)) return names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

void flip_bit(const fs::path& file, std::int64_t bit) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(bit / 8);
  const int byte = stream.get();
  stream.seekp(bit / 8);
  stream.put(static_cast<char>(byte ^ (1 << (bit % 8))));
  if (!stream) throw std::runtime_error("could not flip a bit of " + file.string());
}

}  // namespace smlp::test
