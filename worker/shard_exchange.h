// Copies of shards on their way to the ranks that hold them for each other, while training goes on: this rank's shard
// goes to its partner, those of others come in. A thread reads and writes the files; the loop only starts messages and
// asks whether they are over, a few times a step, and never waits. What is sent is what lies on the disk: first the
// sidecar, then the shard, in chunks, two of them under way in each direction, so that memory is bounded.
//
// Once begun on all ranks an exchange always comes to its end, with an error on some rank too: messages that were
// promised are sent and taken, and failure() says what is worth nothing.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>

#include "checkpoint/disk_watch.h"
#include "checkpoint/local.h"
#include "comm/communicator.h"
#include "worker/partners.h"

namespace smlp {

class ShardExchange {
 public:
  static constexpr std::int64_t default_chunk_bytes = std::int64_t{32} << 20;
  // `group`: for these messages alone. `root`: the node's folder. Takes all the memory it will need.
  ShardExchange(std::unique_ptr<Communicator> group, Partners partners, std::filesystem::path root,
                std::int64_t chunk_bytes = default_chunk_bytes);
  ~ShardExchange();

  // All ranks, when the shards of this save and their sidecars are on the disks everywhere.
  void begin(SaveId save);
  void poll();         // by the loop's thread
  bool done() const;   // all is sent and taken; the thread has nothing to do
  std::string failure() const;  // a sentence, once it is done
  void discard();      // has the thread remove the copies that came in, after a failure
  std::optional<DiskWait> waits_for_disk() const { return disk_.wait(); }  // the thread; from any other

 private:
  // Bytes on their way; filled and emptied in turn by the thread and the loop.
  struct Slot {
    enum class State { empty, moving, full };
    std::unique_ptr<std::byte[]> memory;  // of a whole chunk
    std::span<std::byte> bytes;           // of this one
    State state = State::empty;
    std::unique_ptr<Communicator::Transfer> transfer;
  };
  // One copy as a stream of chunks.
  struct Stream {
    std::int64_t sizes[2] = {-1, -1};  // of sidecar and shard; the first message
    std::int64_t chunks = 0;
    std::int64_t at_disk = 0, at_peer = 0;  // chunks read or written; chunks whose message is over
    std::int64_t started = 0;               // chunks whose message was started
    std::unique_ptr<Communicator::Transfer> head;
    Slot slots[2];
  };
  struct Files;
  void take_memory(Stream& stream) const;

  void work(std::stop_token stop);
  void remove_copies(SaveId save);
  void open_outgoing();
  bool read_next(std::unique_lock<std::mutex>& lock);
  bool write_next(std::unique_lock<std::mutex>& lock);
  void poll_outgoing();
  void poll_incoming();
  void begin_incoming();
  std::int64_t bytes_of(const Stream& stream, std::int64_t chunk) const;
  void count_chunks(Stream& stream) const;
  void fail(const std::string& sentence);  // the mutex is held

  std::unique_ptr<Communicator> group_;
  Partners partners_;
  std::filesystem::path root_;
  std::int64_t chunk_bytes_;
  SaveId save_;
  DiskWatch disk_;

  mutable std::mutex mutex_;  // guards what follows; not held over input or output
  std::condition_variable_any wake_;
  Stream out_, in_;
  std::unique_ptr<Files> files_;   // the thread's
  std::size_t source_ = 0;         // of partners_.from: whose copy comes in
  bool active_ = false;
  std::optional<SaveId> worthless_;  // whose copies are to be removed
  std::string failure_;

  std::jthread thread_;
};

}  // namespace smlp
