// What users ask of a live run (core/control_folder.h), as one rank hears it. A thread of its own looks at the folder,
// on rank 0 four times a second, and writes all answers, so that a slow or hung file system never holds up a step: the loop
// only asks flags. Rank 0 hears `save`, `stop` and `stop_after`, and the loop carries them to all ranks in the step's
// small all-reduce; every rank answers a `dump` by itself, also while its loop hangs. `stop_now`, and stops that the
// loop can't hear, are the launcher's (launcher/control_desk.h); so is the answer to a stop, once the ranks are gone.
#pragma once

#include <pthread.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "core/control_folder.h"
#include "core/run_directory.h"
#include "worker/checkpointing.h"

namespace smlp {

class Control {
 public:
  using Place = std::function<nlohmann::json()>;  // called on the control thread, at any time

  // `loop`: the thread that a dump shows. `where`: the rank's place as far as it is known outside of the loop.
  Control(const RunDirectory& run, int attempt, int rank, pthread_t loop, Place where);
  ~Control();  // writes the answers that are still due, once more also those that found no room

  // More of the place while what it looks at lives: the collectives. Empty: no longer.
  void set_place(Place more);

  // The loop of rank 0; elsewhere nothing is ever asked. `step`: the one being taken.
  bool stop_asked(std::int64_t step);
  bool save_asked();
  void save_begun();  // answers all saves asked for so far, once it is published or failed
  void saved(const SaveOutcome& outcome);
  void leaving(std::int64_t saved_step);                 // saves still open are met by the last one
  void leaving_without_a_save(const std::string& why);  // and fail here

 private:
  void listen(std::stop_token stop);
  void look();
  void hear(const Request& request);
  bool knows_step();
  Answer hear_stop_after(const Request& request);
  void answer_dump(const Request& request);
  void give(const Answer& answer);
  void give_again();
  void event(const std::string& name, const std::string& detail);
  void answer_saves(std::vector<std::string>& ids, const std::string& outcome, std::int64_t step,
                    const std::string& detail);

  RunDirectory run_;
  int attempt_, rank_;
  pthread_t loop_;
  Place where_;
  ControlFolder folder_;
  std::set<std::string> known_;    // ids of requests that still lie there; control thread only, and below
  std::set<std::string> refused_;  // what was told of files that are no request
  std::string stop_after_id_;
  std::vector<Answer> not_given_;  // for which there was no room yet

  std::mutex mutex_;  // guards what follows; never held over input or output
  std::condition_variable_any wake_;
  std::optional<std::int64_t> step_;        // being taken: its flags are known; none while the ranks begin
  std::optional<std::int64_t> stop_after_;  // leave when this step is done
  std::vector<std::string> saves_, begun_;  // ids asked; ids that the save under way answers
  std::vector<Answer> answers_;             // to be written
  Place more_;

  std::jthread thread_;
};

}  // namespace smlp
