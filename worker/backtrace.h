// Where another thread of this process is, for reports of hangs: asked by a signal, answered by its handler.
#pragma once

#include <pthread.h>

#include <string>
#include <vector>

namespace smlp {

// Call once before the first question, and while no thread hangs: loads what unwinding needs.
void prepare_backtraces();
// Function names, innermost first; empty when the thread did not answer within `seconds` (it sleeps in the kernel), and
// one address alone when it was in generated code, which can't be unwound, for all of them.
std::vector<std::string> backtrace_of(pthread_t thread, double seconds);

}  // namespace smlp
