// The environment in which SLURM's programs are asked: their own variables can bend every answer.
#pragma once

#include <string>
#include <vector>

namespace smlp {

// Without the variables that choose what squeue, sinfo, scontrol and srun print, and what scancel passes over.
std::vector<std::string> query_environment(std::vector<std::string> variables);

// For sbatch, which prefers SBATCH_… variables to the options in a script: those that speak of an option which the
// script or the arguments set are left out, others stand. SLURM_… variables of an allocation around us are not those
// of the new job.
std::vector<std::string> submit_environment(std::vector<std::string> variables, const std::string& script_path,
                                            const std::vector<std::string>& arguments);

}  // namespace smlp
