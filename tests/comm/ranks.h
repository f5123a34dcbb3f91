// For test programs that run under mpirun: the world that main() made, shared by every test. main() ends the
// whole job when a test hangs, and a failure on one rank is a failure of that test on all.
#pragma once

#include "comm/communicator.h"

namespace smlp::test {

Communicator& world();

}  // namespace smlp::test
