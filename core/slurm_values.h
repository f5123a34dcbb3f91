// Which values of [slurm] can stand in a batch script. #SBATCH lines have no quoting that a shell knows, so what SLURM
// would read otherwise than it stands is refused.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/job_config.h"

namespace smlp {

// Key and the rest of a sentence that begins with the key and its value, for each that is wrong.
std::vector<std::pair<std::string, std::string>> slurm_problems(const JobConfig::Slurm& slurm);

// "90", "90:30", "1:30:00", "2-12", "2-12:30", "2-12:30:00" in seconds; none: no limit ("", "0", "UNLIMITED"). Throws
// nothing: what is no time is no limit either, slurm_problems() tells.
std::optional<double> slurm_seconds(std::string_view time_limit);

// "64G", "512", in MiB where no unit stands, in bytes. None where it is not known here: "" (the partition's default), "0" (all
// that a node has), and what is no size.
std::optional<double> slurm_bytes(std::string_view memory);

// The position of the first byte that ends or bends a line: a control character other than a tab. npos: none.
std::size_t find_control(std::string_view text);

}  // namespace smlp
