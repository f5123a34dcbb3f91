// A job of each kind, as small as its model can be; tests change what they are about.
#pragma once

#include <string>

#include "core/job_config.h"

namespace smlp::test {

inline JobConfig small_job(const std::string& kind, const std::string& precision) {
  JobConfig job;
  job.model.kind = kind;
  if (kind == "hash" || kind == "switch" || kind == "gshard") job.routing.tokens = kind;
  job.model.context = 8;
  job.model.width = job.model.hidden = 16;
  job.model.heads = 2;
  job.model.dense_blocks = 1;
  job.model.sparse_blocks = kind == "gmlp" || kind == "transformer" ? 0 : 1;
  job.model.experts = 4;
  job.model.vocabulary = 64;
  job.model.dropout = 0.1;
  job.train.precision = precision;
  job.train.micro_batch = job.routing.group_sequences = 2;
  job.train.global_batch = 4;
  return job;
}

}  // namespace smlp::test
