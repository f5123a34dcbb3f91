#include "worker/shard_exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/files.h"

namespace smlp {

// What the thread has open. A chunk may hold the end of the sidecar and the beginning of the shard.
struct ShardExchange::Files {
  std::string sent_sidecar, taken_sidecar;
  std::optional<DiskFile> sent, taken;
  bool taking_failed = false;  // what still comes for this copy is thrown away
};

ShardExchange::ShardExchange(std::unique_ptr<Communicator> group, Partners partners, std::filesystem::path root,
                             std::int64_t chunk_bytes)
    : group_(std::move(group)),
      partners_(std::move(partners)),
      root_(std::move(root)),
      chunk_bytes_(chunk_bytes),
      files_(std::make_unique<Files>()) {
  if (partners_.to) take_memory(out_);
  if (!partners_.from.empty()) take_memory(in_);
  thread_ = std::jthread([this](std::stop_token stop) { work(std::move(stop)); });
}

ShardExchange::~ShardExchange() = default;

void ShardExchange::take_memory(Stream& stream) const {
  for (auto& slot : stream.slots) {
    slot.memory = std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(chunk_bytes_));
  }
}

std::int64_t ShardExchange::bytes_of(const Stream& stream, std::int64_t chunk) const {
  return std::min(chunk_bytes_, stream.sizes[0] + stream.sizes[1] - chunk * chunk_bytes_);
}

void ShardExchange::count_chunks(Stream& stream) const {
  stream.chunks = (stream.sizes[0] + stream.sizes[1] + chunk_bytes_ - 1) / chunk_bytes_;
}

void ShardExchange::fail(const std::string& sentence) {
  if (!failure_.empty()) return;
  failure_ = fmt::format("the partner's copy in step {}, on rank {}: {}", save_.step, group_->rank(), sentence);
}

void ShardExchange::begin(SaveId save) {
  const std::lock_guard lock(mutex_);
  expect(!active_, "copies of shards were begun while others are under way");
  if (!partners_.to && partners_.from.empty()) return;
  save_ = save;
  failure_.clear();
  active_ = true;
  source_ = 0;
  out_.sizes[0] = out_.sizes[1] = -1;
  out_.chunks = out_.at_disk = out_.at_peer = out_.started = 0;
  begin_incoming();
  wake_.notify_all();
}

void ShardExchange::begin_incoming() {
  in_.sizes[0] = in_.sizes[1] = -1;
  in_.chunks = in_.at_disk = in_.at_peer = in_.started = 0;
  in_.head.reset();
}

bool ShardExchange::done() const {
  const std::lock_guard lock(mutex_);
  return !active_;
}

std::string ShardExchange::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

void ShardExchange::discard() {
  const std::lock_guard lock(mutex_);
  worthless_ = save_;
  wake_.notify_all();
}

void ShardExchange::remove_copies(SaveId save) {
  const DiskWatch::Work work(disk_, save.step);
  for (const int rank : partners_.from) {
    const auto files = local_files(root_, save, rank, true);
    std::error_code ignored;
    std::filesystem::remove(files.sidecar, ignored);
    std::filesystem::remove(files.shard, ignored);
    remove_if_empty(files.shard.parent_path());
  }
}

void ShardExchange::poll() {
  const std::lock_guard lock(mutex_);
  if (!active_) return;
  if (partners_.to) poll_outgoing();
  poll_incoming();
  const bool sent = !partners_.to || (out_.chunks > 0 && out_.at_peer == out_.chunks);
  if (sent && source_ == partners_.from.size()) active_ = false;
  wake_.notify_all();
}

void ShardExchange::poll_outgoing() {
  auto& s = out_;
  if (s.chunks == 0) return;  // not opened yet
  if (!s.head) s.head = group_->start_send(std::as_bytes(std::span(s.sizes)), *partners_.to);
  if (!s.head->done()) return;
  while (s.at_peer < s.started && s.slots[s.at_peer % 2].transfer->done()) {
    s.slots[s.at_peer++ % 2].state = Slot::State::empty;
  }
  while (s.started < s.chunks && s.slots[s.started % 2].state == Slot::State::full) {
    auto& slot = s.slots[s.started % 2];
    slot.transfer = group_->start_send(slot.bytes, *partners_.to);
    slot.state = Slot::State::moving;
    ++s.started;
  }
}

void ShardExchange::poll_incoming() {
  if (source_ == partners_.from.size()) return;
  auto& s = in_;
  const int from = partners_.from[source_];
  if (!s.head) s.head = group_->start_receive(std::as_writable_bytes(std::span(s.sizes)), from);
  if (s.chunks == 0) {
    if (!s.head->done()) return;
    count_chunks(s);
  }
  while (s.at_peer < s.started && s.slots[s.at_peer % 2].transfer->done()) {
    s.slots[s.at_peer++ % 2].state = Slot::State::full;
  }
  while (s.started < s.chunks && s.slots[s.started % 2].state == Slot::State::empty) {
    auto& slot = s.slots[s.started % 2];
    slot.bytes = {slot.memory.get(), static_cast<std::size_t>(bytes_of(s, s.started))};
    slot.transfer = group_->start_receive(slot.bytes, from);
    slot.state = Slot::State::moving;
    ++s.started;
  }
  if (s.at_disk == s.chunks) {
    ++source_;
    begin_incoming();
  }
}

void ShardExchange::work(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (worthless_ || !stop.stop_requested()) {
    if (const auto save = std::exchange(worthless_, std::nullopt)) {
      lock.unlock();
      remove_copies(*save);
      lock.lock();
    } else if (active_ && partners_.to && out_.chunks == 0) {
      lock.unlock();
      open_outgoing();
      lock.lock();
    } else if (!active_ || (!read_next(lock) && !write_next(lock))) {
      wake_.wait(lock, stop, [&] {
        const auto ready = [](const Stream& s, Slot::State state) {
          return s.at_disk < s.chunks && s.slots[s.at_disk % 2].state == state;
        };
        return worthless_ || (active_ && ((partners_.to && out_.chunks == 0) || ready(out_, Slot::State::empty) ||
                                          ready(in_, Slot::State::full)));
      });
    }
  }
}

void ShardExchange::open_outgoing() {
  auto& files = *files_;
  std::string trouble;
  std::int64_t bytes = 0;
  files.sent.reset();
  files.sent_sidecar.clear();
  try {
    const DiskWatch::Work work(disk_, save_.step);
    const auto mine = local_files(root_, save_, group_->rank(), false);
    files.sent_sidecar = read_text(mine.sidecar);
    files.sent = DiskFile::open(mine.shard);
    bytes = files.sent->size();
  } catch (const std::exception& error) {
    trouble = error.what();
  }
  const std::lock_guard lock(mutex_);
  if (!trouble.empty()) fail(trouble);
  out_.sizes[0] = std::max<std::int64_t>(std::ssize(files.sent_sidecar), 1);  // never nothing to send
  files.sent_sidecar.resize(static_cast<std::size_t>(out_.sizes[0]));
  out_.sizes[1] = bytes;
  out_.head.reset();
  count_chunks(out_);
}

bool ShardExchange::read_next(std::unique_lock<std::mutex>& lock) {
  auto& s = out_;
  if (s.at_disk == s.chunks || s.slots[s.at_disk % 2].state != Slot::State::empty) return false;
  auto& slot = s.slots[s.at_disk % 2];
  const auto size = bytes_of(s, s.at_disk), first = s.at_disk * chunk_bytes_, sidecar = s.sizes[0];
  lock.unlock();
  slot.bytes = {slot.memory.get(), static_cast<std::size_t>(size)};
  std::string trouble;
  try {
    const DiskWatch::Work work(disk_, save_.step);
    std::span<std::byte> rest = slot.bytes;
    if (first < sidecar) {
      const auto count = std::min(size, sidecar - first);
      std::memcpy(rest.data(), files_->sent_sidecar.data() + first, static_cast<std::size_t>(count));
      rest = rest.subspan(static_cast<std::size_t>(count));
    }
    if (!rest.empty()) files_->sent->read_at(rest, std::max<std::int64_t>(first - sidecar, 0));
  } catch (const std::exception& error) {
    trouble = error.what();
  }
  lock.lock();
  if (!trouble.empty()) fail(trouble);
  slot.state = Slot::State::full;
  if (++s.at_disk == s.chunks) files_->sent.reset();
  return true;
}

bool ShardExchange::write_next(std::unique_lock<std::mutex>& lock) {
  auto& s = in_;
  if (s.at_disk == s.chunks || s.slots[s.at_disk % 2].state != Slot::State::full) return false;
  auto& slot = s.slots[s.at_disk % 2];
  const auto first = s.at_disk * chunk_bytes_, sidecar = s.sizes[0], shard = s.sizes[1];
  const bool last = s.at_disk + 1 == s.chunks;
  const auto target = local_files(root_, save_, partners_.from[source_], true);
  lock.unlock();
  auto& files = *files_;
  std::string trouble;
  try {
    const DiskWatch::Work work(disk_, save_.step);
    if (first == 0) {
      files.taking_failed = false;
      files.taken_sidecar.clear();
      make_folder(target.shard.parent_path());
      files.taken = DiskFile::create(target.shard);
      files.taken->reserve(shard);
    }
    if (!files.taking_failed) {
      std::span<const std::byte> rest = slot.bytes;
      if (first < sidecar) {
        const auto part = rest.first(std::min(rest.size(), static_cast<std::size_t>(sidecar - first)));
        files.taken_sidecar.append(reinterpret_cast<const char*>(part.data()), part.size());
        rest = rest.subspan(part.size());
      }
      files.taken->write_at(rest, std::max<std::int64_t>(first - sidecar, 0));
    }
    if (last && !files.taking_failed) {
      files.taken->sync();
      files.taken->close();
      write_file(target.sidecar, files.taken_sidecar);
      sync_folder(target.shard.parent_path());
    }
  } catch (const std::exception& error) {
    trouble = error.what();
    files.taking_failed = true;
  }
  if (last) files.taken.reset();
  lock.lock();
  if (!trouble.empty()) fail(trouble);
  slot.state = Slot::State::empty;
  ++s.at_disk;
  return true;
}

}  // namespace smlp
