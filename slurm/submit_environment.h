// The environment in which SLURM's programs are asked: their own variables can bend every answer.
#pragma once

#include <string>
#include <vector>

namespace smlp {

// Without the variables that choose what squeue, sinfo, scontrol and srun print, and what scancel passes over.
std::vector<std::string> query_environment(std::vector<std::string> variables);

// What every srun of ours is to find, made of these variables of a process in an allocation: nothing by which a step gets less
// than its nodes have for the job. Else SLURM shows each task of a job with GPUs or cores for each task its own alone: one
// task's to the only one that a probe or a daemon of mpirun is on a node, and to ranks none of their neighbours' GPUs,
// without which NCCL finds no NVLink between them; and a job of `--export=NONE` starts its steps without its variables.
std::vector<std::string> step_environment(std::vector<std::string> variables);

// For sbatch, which prefers SBATCH_… variables to the options in a script: those that speak of an option which the
// script or the arguments set are left out, others stand. SLURM_… variables of an allocation around us are not those
// of the new job.
std::vector<std::string> submit_environment(std::vector<std::string> variables, const std::string& script_path,
                                            const std::vector<std::string>& arguments);

}  // namespace smlp
