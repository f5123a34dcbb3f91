// The one exception type for what stops a command or a run, and the exit codes that scripts may rely on.
// Messages are whole sentences: what happened, where (file and line, tensor, rank, step), what to do.
#pragma once

#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace smlp {

// docs/running.md lists these for users; the supervisor decides by them (launcher/supervisor.h).
enum class ExitCode : int {
  done = 0,
  difference = 1,      // `checkpoint diff` found one
  usage = 64,          // wrong command line
  bad_data = 65,       // a corrupt file
  unavailable = 69,    // a resource is missing: no GPU, no sbatch
  fault = 70,          // a defect of ours
  io_failed = 74,      // input or output failed
  call_again = 75,     // stopped early on request, or another run holds the directory
  diverged = 76,       // the loss left the finite numbers
  configuration = 78,  // a bad job file or a file it names is missing
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& sentence) : std::runtime_error(sentence), code_(code) {}
  ExitCode code() const noexcept { return code_; }

 private:
  ExitCode code_;
};

// What std::bad_alloc is to a user.
inline constexpr const char* out_of_memory =
    "memory ran out, or a limit on it (`ulimit -v`, the job's own) was reached: give the job more, or make the model, the "
    "micro-batch or the number of ranks of a host smaller";

// A promise between two pieces of our own code: throws Error(fault) with file and line when it is broken.
void expect(bool condition, std::string_view sentence,
            std::source_location where = std::source_location::current());
// The same of a sentence that must be put together first: `sentence()`, called when the promise is broken and not before.
template <class Sentence>
  requires std::is_invocable_r_v<std::string, const Sentence&>
void expect(bool condition, const Sentence& sentence, std::source_location where = std::source_location::current()) {
  if (!condition) [[unlikely]]
    expect(false, std::string_view(sentence()), where);
}

// The entry of `known` nearest to `word` by edit distance, or "" when none is near enough to suggest.
template <class Range>
std::string nearest_name(std::string_view word, const Range& known);

std::size_t edit_distance(std::string_view a, std::string_view b);  // capital letters are as small ones

template <class Range>
std::string nearest_name(std::string_view word, const Range& known) {
  std::string best;
  std::size_t least = word.size() / 2 + 2;
  for (const auto& name : known) {
    const std::size_t distance = edit_distance(word, name);
    if (distance < least) {
      least = distance;
      best = std::string(name);
    }
  }
  return best;
}

}  // namespace smlp
