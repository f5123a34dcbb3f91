#include "commands/with_checkpoint.h"

#include "checkpoint/checkpoint.h"
#include "core/error.h"
#include "core/tell.h"

namespace smlp {

std::filesystem::path chosen_checkpoint(const std::filesystem::path& run_or_checkpoint) {
  std::vector<CheckpointInfo> rejected;
  auto found = find_checkpoint(run_or_checkpoint, &rejected);
  for (const auto& info : rejected) tell("{} is passed over: {}", info.path.filename().string(), info.reason);
  return found;
}

namespace {

// Of a checkpoint that could not be read; all else is an answer, or an end that somebody wanted.
bool may_be_of_reading(int code) {
  for (const auto one : {ExitCode::bad_data, ExitCode::io_failed, ExitCode::configuration}) {
    if (code == static_cast<int>(one)) return true;
  }
  return false;
}

}  // namespace

int with_checkpoint(const std::filesystem::path& run_or_checkpoint,
                    const std::function<int(const std::filesystem::path&)>& use) {
  constexpr int most_tries = 5;
  for (int tries = 1;; ++tries) {
    const auto checkpoint = chosen_checkpoint(run_or_checkpoint);
    const auto deleted = [&] {
      return tries < most_tries && !std::filesystem::exists(checkpoint) && std::filesystem::exists(run_or_checkpoint);
    };
    try {
      if (const int code = use(checkpoint); !may_be_of_reading(code) || !deleted()) return code;
    } catch (const Error&) {
      if (!deleted()) throw;
    }
    tell("{} was deleted by its run meanwhile; the newest one is taken", checkpoint.string());
  }
}

}  // namespace smlp
