#include "checkpoint/saved_job.h"

#include <fmt/format.h>

#include "checkpoint/manifest.h"
#include "core/error.h"
#include "core/run_directory.h"

namespace smlp {

LoadedJob saved_job(const RunState& state, const std::filesystem::path& checkpoint,
                    const std::vector<std::string>& overrides) {
  const auto text = state.text("job");
  if (text.empty()) {
    throw Error(ExitCode::bad_data, fmt::format("{} does not say which job it is of", checkpoint.string()));
  }
  return parse_job(text, checkpoint / manifest_name, overrides);
}

}  // namespace smlp
