// The weights that a new run begins with (--init-from), held against its job.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "core/job_file.h"

namespace smlp {

// What chosen_checkpoint() finds in `given`, absolute. Says in which keys of the model it differs from `job`, whose tensors the
// ranks compare. Throws Error(configuration) where it was trained with another tokenizer than data.tokenizer, unless that key is
// among the `accepted` ones: each row of its embedding would stand for another token.
std::filesystem::path weights_to_begin_with(const std::string& given, const JobConfig& job,
                                            const std::vector<std::string>& accepted);

}  // namespace smlp
