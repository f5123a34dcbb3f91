// A process by its number.
#pragma once

#include <sys/types.h>

namespace smlp {

// A zombie does not live: where nobody reaps orphans it has its number for good. One of which nothing can be seen (/proc may
// hide other users') lives as long as its number is taken.
bool is_alive(pid_t pid);

}  // namespace smlp
