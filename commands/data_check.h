// The part of a job's checks that needs its data: what `run` refuses before any rank starts, and `config check`
// tells without running.
#pragma once

#include "core/job_file.h"

namespace smlp {

// model.vocabulary = 0 becomes the tokenizer's, padded to a multiple of 64. `data_needed`: a tokenizer that can't be
// opened is an error of its own; otherwise the sentence asks for model.vocabulary, for nothing else needs the data.
void resolve_vocabulary(LoadedJob& job, bool data_needed);

// Tokenizer and token files exist, fit each other and the model, and hold a sequence at least. Throws
// Error(configuration), or bad_data for a corrupt file, with the key and line that named it.
void check_data(const LoadedJob& job);

}  // namespace smlp
