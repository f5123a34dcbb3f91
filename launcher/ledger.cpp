#include "launcher/ledger.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/json_text.h"
#include "core/tell.h"

namespace smlp {

namespace {

// When a rank of the last attempt was last alive, by its heartbeat; 0: unknown.
double last_sign_of_life(const RunDirectory& run) {
  double newest = 0;
  for (const auto& entry : entries_of(run.heartbeats())) {
    newest = std::max(newest, written_at(entry).value_or(0));
  }
  return newest;
}

}  // namespace

void Ledger::launcher_began(double now) {
  auto book = read_goodput(run_);
  if (!book) return write(Goodput(now), "began", 0);
  book->pass(std::min(now, last_sign_of_life(run_)), Spent::lost_work);  // a launcher that died left it open
  book->pass(now, Spent::waiting);
  write(*book, "waited", 0);
}

void Ledger::attempt_ended(double now, int attempt, bool stepped, bool in_order) {
  auto book = read_goodput(run_).value_or(Goodput(now));
  book.pass(now, !stepped ? Spent::restart : in_order ? Spent::checkpoint_stall : Spent::lost_work);
  write(book, "attempt", attempt);
}

void Ledger::write(const Goodput& book, const char* what, int attempt) {
  nlohmann::json line = {{"what", what}};
  if (attempt > 0) line["attempt"] = attempt;
  book.write_into(line);
  try {
    append_line(run_.ledger(), json_text(line));
  } catch (const Error& error) {
    tell("{}; the run goes on", error.what());
  }
}

}  // namespace smlp
