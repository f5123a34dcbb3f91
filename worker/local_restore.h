// The node-local tier at a start: what lies on the nodes is told around, the newest save that is whole is found and
// verified by all ranks together, wherever these sit now. Collective throughout; a start without checkpoint.local_dir has none.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "core/run_directory.h"
#include "worker/load_together.h"
#include "worker/local_choice.h"
#include "worker/local_record.h"
#include "worker/partners.h"

namespace smlp {

// A save of the local tier that holds. The same on every rank, but for the files' paths.
struct LocalSource {
  SaveId id;
  StoredSave save;
};

class LocalStart {
 public:
  using Rejected = std::function<void(const std::string& what, const std::string& reason)>;  // called on rank 0

  // Asks around what lies in `local_dir`, for a run whose saves after `not_after` are given up.
  LocalStart(const std::string& local_dir, const RunDirectory& run, std::optional<std::int64_t> not_after,
             Communicator& world, Rejected rejected);

  const std::filesystem::path& folder() const { return folder_; }  // this node's, of this run
  const Partners& partners() const { return partners_; }

  std::optional<std::int64_t> newest();          // rank 0: step of the newest save that may be whole; nullopt elsewhere
  // Verifies it, `between` blocks; nullopt: it is not whole, and no candidate any more.
  std::optional<LocalSource> take_newest(const std::function<void()>& between);

  std::optional<double> saved_at(SaveId save) const;  // when its part that lies here was written; nullopt: none does

  // The run goes on from this step: later saves count no more, what is not kept is removed. False on every rank when no
  // record can be made: the tier must not be used then. Throws on rank 0 where an older one can't be replaced.
  bool begin(int attempt, std::int64_t step);

 private:
  std::vector<Holding> ask_around();
  void give_up(const LocalCandidate& candidate, const std::string& reason);
  std::optional<std::vector<Reader>> agree_on_readers();
  std::string verify_mine(const std::vector<Reader>& readers, const std::function<void()>& between) const;
  bool hear_reports(const std::vector<std::string>& reports, const std::vector<Reader>& readers,
                    std::vector<std::string>& sidecars);
  StoredSave save_of(SaveId id, const std::vector<Reader>& readers, std::vector<Sidecar> parts) const;
  void sweep_foreign() const;

  Communicator& world_;
  RunDirectory run_;
  std::filesystem::path local_dir_;
  Rejected rejected_;
  LocalRecord record_;
  std::vector<std::string> hosts_;  // by rank
  std::filesystem::path folder_;
  Partners partners_;
  LocalListing listing_;
  std::vector<LocalCandidate> candidates_;  // rank 0, newest first
};

}  // namespace smlp
