// Sharded checkpoints: slices of tensors to HDF5 and back, for any number of ranks to any other. The only room
// that includes hdf5.h. Knows no communicator and no parameter list: the worker turns its lists into Pieces and
// asks all ranks "written?" with its other per-step questions. docs/checkpoint_format.md has the bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/disk_watch.h"
#include "tensor/backend.h"

namespace smlp {

// My share of one logical tensor: elements [offset, offset + local.size()) of its row-major flattening. The same
// list is handed to save and to load, so they cannot drift. `mine` says who writes: false where another rank
// writes this range (a replica); every rank reads all of its pieces. `alone`: no other rank holds any of this range, which
// may be empty.
struct Piece {
  std::string name;   // "blocks.0.in.weight", "adam.m/blocks.0.in.weight", ...
  TensorView local;   // contiguous
  Shape global_shape;
  std::int64_t offset = 0;
  bool mine = true;
  bool alone = false;
};

// Everything else the next step reads: names to numbers. Part of the manifest, and compared by `diff`.
struct RunState {
  std::map<std::string, std::vector<double>> numbers;
  std::map<std::string, std::vector<std::int64_t>> integers;  // step, tokens, sequences, seed, updates...
  std::map<std::string, std::string> texts;                   // fingerprint, job, tokenizer (its fingerprint), data_digest

  // In `numbers` where an evaluation took place at this very step; what WriterOptions::keep_best goes by.
  static constexpr const char* validation_loss = "validation_loss";
  bool operator==(const RunState&) const = default;
  std::int64_t integer(const std::string& name) const;  // first entry; throws Error(bad_data) when absent
  double number(const std::string& name) const;         // likewise
  std::string text(const std::string& name) const;      // "" where there is none
};

struct WriterOptions {
  std::filesystem::path root;  // run_dir/checkpoints
  int rank = 0, ranks = 1;
  int attempt = 1;        // in the names of what is written: a stale rank of an earlier attempt can't publish
  int keep_last = 3;
  std::int64_t keep_every = 0;
  bool keep_best = false;  // the sound one of the least validation loss stays too
  double patience_seconds = 10;  // for other machines' files to show up on a network disk
  bool local = false;  // `root` is a node's own folder: the layout of checkpoint/local.h, and nothing of the above but ranks
};

// One shard file a rank, written behind the training loop's back; nothing counts until publish() renames the
// directory. Called from the loop's thread only. Life of a checkpoint: docs/architecture.md.
//   step-00000120.attempt-0003.tmp/rank-0000.h5    being written; swept at start
//   step-00000120/{rank-….h5, whole.h5, manifest.json}    published
// Whatever goes wrong on the disk ends in State::failed with a sentence: the files are removed, nothing is
// published, the process goes on. The run state that is kept is rank 0's.
class CheckpointWriter {
 public:
  explicit CheckpointWriter(WriterOptions options);
  ~CheckpointWriter();  // waits for the writing thread; never throws; unpublished work is removed

  enum class State : std::uint8_t { idle, writing, written, publishing, published, failed };

  // Takes the host memory that a device copies such pieces into, which lasts seconds for tens of gigabytes, before a loop
  // waits for it. What it can't take, begin() takes or misses.
  void prepare(Backend& backend, std::span<const Piece> pieces);
  // Copies the pieces to host memory (kept between saves), starts the writing thread, returns. From a device they are
  // copied beside what it gets to do next: Backend::put_behind_downloads() comes before the first work that writes to
  // them, and the backend outlives the writer. Collective in spirit: every rank calls it at the same step.
  void begin(Backend& backend, std::span<const Piece> pieces, const RunState& state);
  // Instead of begin(): writes the copy that another writer of this rank took for its last save, which may have failed.
  // Nothing is copied: the two exchange their memory. Writing that the other is still at is given up.
  void take_over(CheckpointWriter& other);
  State state() const;         // polled once a step
  std::string failure() const; // a sentence, when state() is failed
  bool superseded() const;     // why, on rank 0: a newer attempt has taken over, and this one will publish nothing any more
  std::string note() const;    // a sentence for the log when something minor went wrong after publishing, or ""
  // When all ranks are written. Rank 0: manifest, whole.h5, rename, LATEST; on the thread. In a node's own folder every
  // rank, at once: its files stay when it is released.
  void publish();
  void release();              // back to idle: after published or failed, anywhere; a failed save's files are removed
  void wait();                 // until the thread has nothing to do
  double stall_seconds() const;   // what the last begin() cost the loop
  double write_seconds() const;   // what the last shard took
  std::int64_t written_bytes() const;
  std::optional<DiskWait> waits_for_disk() const;  // the writing thread, while it is at work; from any thread

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct CheckpointInfo {
  std::int64_t step = 0;
  std::filesystem::path path;
  std::int64_t bytes = 0;
  int ranks = 0;
  bool valid = false;
  std::string reason;  // why not
  bool unreadable = false;  // why not: it could not be read now, and may hold. Else it is damaged, whoever looks
  int newer_format = 0;  // why not: its format's version, which is above this program's. Nothing is wrong with it
  int attempt = 0;     // that published it
  std::optional<double> validation_loss;  // as its run state has it; never NaN
  bool stays = false;       // the job that it was saved by has a keep_every which names its step
  bool best_stays = false;  // that job has keep_best
};

// Published checkpoints of a run, oldest first. `thorough`: digests of every piece are computed and compared;
// otherwise only manifest and file sizes are looked at. An absent folder has none; throws Error(io_failed) where the
// folder can't be listed to its end.
std::vector<CheckpointInfo> list_checkpoints(const std::filesystem::path& root, bool thorough);
CheckpointInfo verify_checkpoint(const std::filesystem::path& checkpoint);   // thorough
CheckpointInfo inspect_checkpoint(const std::filesystem::path& checkpoint);  // manifest and file sizes
// Throws Error(configuration) where one of them is of a newer format: a run that went on beside it would pass it over, move it
// aside as damaged and delete it later.
void refuse_newer_formats(const std::vector<CheckpointInfo>& published);
// A rank's part of a shared verification: shard files with index % parts == part. Empty string: sound. Throws where they
// can't be read now (Error(io_failed), std::bad_alloc), of which nothing follows. `between` is called after each block that
// is read, here and below: a slow disk is no hang.
std::string verify_shards(const std::filesystem::path& checkpoint, int part, int parts,
                          const std::function<void()>& between = [] {});

// The path as a user types it: a run directory, its checkpoints folder, or one checkpoint.
// Chooses the newest valid one (thorough); throws Error with the reasons when there is none: configuration, bad_data, or
// io_failed where one could not be read. `rejected` receives the newer ones that were passed over, newest first.
std::filesystem::path find_checkpoint(const std::filesystem::path& run_or_checkpoint,
                                      std::vector<CheckpointInfo>* rejected = nullptr);

RunState read_run_state(const std::filesystem::path& checkpoint);
// Start-up on rank 0: removes *.tmp left by earlier attempts; a sentence for each that can't be removed, and stays. A
// rejected checkpoint is moved aside so that a new one of that step can be published.
std::vector<std::string> sweep_checkpoints(const std::filesystem::path& root);
void set_aside(const std::filesystem::path& checkpoint);

// Whole logical tensors, layout-free; for `checkpoint show`, `digest`, `diff` and converters.
struct LogicalTensor {
  std::string name;
  Shape shape;
  DType dtype;
};
std::vector<LogicalTensor> list_tensors(const std::filesystem::path& checkpoint);
bool is_weight(const std::string& tensor);  // by its name, or a table; else the optimiser's state: "adam.m/embed.weight"
std::vector<std::byte> read_tensor(const std::filesystem::path& checkpoint, const std::string& name);
std::map<std::string, std::string> digest_tensors(const std::filesystem::path& checkpoint);  // XXH3-128, hex
std::string digest_all(const std::map<std::string, std::string>& digests);

// Of the run state too, under names like "run state: integers.step". Empty: bit-identical.
struct TensorDifference {
  std::string name, what;  // "first differs at [3, 7]: 0.5 against 0.25; largest difference 0.3; 12 of 4096 elements"
  std::int64_t elements = 0, first = 0;  // how many differ, and the first one's place in the flat tensor
  double largest = 0;
};
std::vector<TensorDifference> diff_checkpoints(const std::filesystem::path& a, const std::filesystem::path& b);

}  // namespace smlp
