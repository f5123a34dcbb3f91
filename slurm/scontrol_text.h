// What `scontrol show job` and `scontrol show node` print, read. Free text in it (names, comments, reasons) is not
// trusted: a job named "x JobState=CANCELLED" is not a cancelled one.
#pragma once

#include <map>
#include <string>

#include "slurm/controller.h"

namespace smlp {

// `own`: the question is asked by a process of that job, so that a job which ends did not end by itself.
JobAnswer read_job(const std::string& text, const std::string& job_id, bool own);
std::map<std::string, NodeAnswer> read_nodes(const std::string& text);

}  // namespace smlp
